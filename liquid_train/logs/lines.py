"""Lines of a log as Python reads them: of files that DuckDB refuses as a whole, and of those to be shown."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

LONGEST = 16 * 1024 * 1024
"""Bytes of the longest line that is read; a longer one is unparsable."""


def open_log(path: Path) -> BinaryIO:
    """Open a file that may be compressed by gzip.

    Raises:
        OSError: It cannot be opened.
    """
    return cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield every line with its newline, of a longer one than ``LONGEST`` the beginning without."""
    while line := file.readline(LONGEST):
        yield line
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST)


def copy_readable(path: Path, copy: Path) -> str | None:
    """Write what can be read of a damaged log to ``copy``, line by line; return why not all of it could.

    A line too long becomes one that is unparsable. A file compressed by zstd is not read in part.

    Raises:
        OSError: The copy cannot be written.
    """
    cause = None
    with copy.open("wb") as out:
        if path.suffix == ".zst":
            return "damaged; what there is of it can be had with zstd --decompress"
        try:
            with open_log(path) as file:
                for line in read_lines(file):
                    out.write(line if line.endswith(b"\n") or len(line) < LONGEST else b"(too long)\n")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            cause = f"damaged: {error}"
        except OSError as error:
            cause = error.strerror or str(error)
    return cause


def printable(line: bytes, length: int = 120) -> str:
    """The beginning of a line, with everything escaped that a terminal would act on."""
    text = line[: 4 * length].decode("utf-8", "backslashreplace").rstrip("\r\n")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"
