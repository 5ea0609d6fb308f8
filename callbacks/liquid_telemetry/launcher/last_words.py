"""What a command wrote to stderr in the end, where that is a file: streams are never taken over.

A pipe between the command and where its stderr goes would have to be emptied for as long as anything holds it, and a
command whose launcher is killed would die of its next line. So a terminal and a pipe are left alone.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_STDERR = Path("/proc/self/fd/2")
_SIZE = 16_000
_EXCEPTION = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?")
_UNCAUGHT = 1  # exit code of Python after an exception
_MARKS = ("Traceback (most recent call last):", '  File "')  # of a syntax error there is no traceback
_OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")


class LastWords:
    """Reads the end of stderr without touching it."""

    def __init__(self) -> None:
        self._start = _size_of_stderr()

    def of(self, exit_code: int) -> dict[str, str]:
        """Return what a Python command said of the exception that ended it, as fields of a record.

        Args:
            exit_code: Of the command.
        """
        text = self._read()
        lines = text.rstrip().splitlines()
        found = _EXCEPTION.fullmatch(lines[-1]) if lines else None
        if exit_code != _UNCAUGHT or found is None or not any(mark in text for mark in _MARKS):
            return {}
        kind = found[1].rpartition(".")[2]
        begin = max(text.rfind(_MARKS[0]), 0)
        return {
            "reason": "out_of_memory" if kind in _OUT_OF_MEMORY else "exception",
            "error_type": kind,
            "error_message": (found[2] or "")[:1000],
            "traceback": text[begin:].rstrip(),
        }

    def _read(self) -> str:
        size = _size_of_stderr()
        if self._start is None or size is None:
            return ""
        try:
            with _STDERR.open("rb") as file:
                file.seek(max(self._start, size - _SIZE))
                return file.read(_SIZE).decode("utf-8", "replace")
        except OSError:  # it may be ours to write only
            return ""


def _size_of_stderr() -> int | None:
    try:
        status = os.fstat(2)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
