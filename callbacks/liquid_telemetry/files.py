"""Files of JSON lines that never grow without bound."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

MAX_BYTES = 64 * 1024 * 1024
MAX_PARTS = 8
_LONGEST = 1024 * 1024


class LineFile:
    """Appends whole lines; rotates at a size and keeps a number of parts.

    ``events.jsonl`` becomes ``events.1.jsonl``, that one ``events.2.jsonl``, and so on. A line that the disk took
    only in part is taken back, and so is one that a killed process left half written: every line in the file is whole.

    Args:
        path: The newest part.
        max_bytes: Size at which a part is closed.
        max_parts: Parts kept, the newest included.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, max_parts: int = MAX_PARTS) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._max_parts = max_parts
        self._descriptor: int | None = None

    def write(self, text: str) -> None:
        """Append ``text``, which ends in a newline.

        Raises:
            OSError: It cannot be written; nothing of it is in the file.
        """
        data = text.encode("utf-8", "backslashreplace")
        descriptor = self._open()
        status = os.fstat(descriptor)
        if status.st_nlink == 0:  # somebody has deleted it
            self.close()
            descriptor = self._open()
            status = os.fstat(descriptor)
        size = status.st_size
        if size and size + len(data) > self._max_bytes:
            self._rotate()
            descriptor, size = self._open(), 0
        try:
            written = os.write(descriptor, data)
            while written < len(data):
                written += os.write(descriptor, data[written:])
        except OSError:
            os.ftruncate(descriptor, size)
            raise

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            _end_last_line(self._descriptor)
        return self._descriptor

    def _rotate(self) -> None:
        self.close()
        for number in range(self._max_parts - 1, 0, -1):
            part = self._part(number - 1)
            if part.exists():
                part.replace(self._part(number))

    def _part(self, number: int) -> Path:
        return self.path.with_suffix(f".{number}{self.path.suffix}") if number else self.path


def _end_last_line(descriptor: int) -> None:
    """Take back half a line; end one that is whole but for its newline."""
    size = os.fstat(descriptor).st_size
    os.lseek(descriptor, max(0, size - _LONGEST), os.SEEK_SET)
    rest = os.read(descriptor, _LONGEST).rpartition(b"\n")[2]
    if not rest:
        return
    try:
        json.loads(rest)
    except ValueError:
        os.ftruncate(descriptor, size - len(rest))
    else:
        os.write(descriptor, b"\n")


def append_line(path: Path, text: str) -> None:
    """Append a line to a file that a living process writes to.

    Neither rotation nor a look at half lines, as :class:`LineFile` has them: a half line may be that process's own that
    it is about to finish, and a rotated file would be written on by it. One call keeps the two apart.

    Raises:
        OSError: It cannot be written; nothing of it is in the file.
    """
    data = text.encode("utf-8", "backslashreplace")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        written = os.write(descriptor, data)
        if written < len(data):
            if os.fstat(descriptor).st_size == size + written:
                os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
    finally:
        os.close(descriptor)


def last_lines(path: Path, size: int = 131_072) -> list[str]:
    """Return the whole lines within the last ``size`` bytes of a file, without their newlines.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        start = max(file.seek(0, os.SEEK_END) - size, 0)
        file.seek(start)
        lines = file.read(size).decode("utf-8", "replace").split("\n")
    return [line for line in (lines[1:] if start else lines) if line]


def shortened(lines: Sequence[str], count: int, length: int = 1000) -> list[str]:
    """Return the last ``count`` lines, each cut to ``length`` characters."""
    return [line if len(line) <= length else f"{line[: length - 1]}…" for line in lines[-count:]]


def rank_name(stem: str, rank: int) -> str:
    """``events.jsonl`` for rank 0, ``events.rank1.jsonl`` for rank 1."""
    return f"{stem}.jsonl" if rank == 0 else f"{stem}.rank{rank}.jsonl"
