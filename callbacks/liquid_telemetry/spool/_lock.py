"""POSIX record locks: freed by the kernel the moment their process ends, whatever its children do.

The trap: closing *any* descriptor of a locked file drops the process's lock on it. So a file is locked by one
:class:`FileLock`, and a process never probes a file that it holds itself.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

SUPPORTED = sys.platform != "win32"
if sys.platform != "win32":
    import fcntl

_PATIENCE = 1.0  # seconds; longer than any probe holds a file


class FileLock:
    """An exclusive lock on a file, held until :meth:`release` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path, patience: float = _PATIENCE) -> FileLock | None:
        """Lock ``path``, created when missing; None when another process holds it for ``patience`` seconds.

        Raises:
            OSError: The file cannot be opened.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + patience
        while not _try_lock(descriptor, exclusive=True):
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.01)
        return cls(path, descriptor)

    def lies_on_disk(self) -> bool:
        """Whether the path still names the locked file, which someone may have deleted or replaced."""
        try:
            on_disk = self.path.stat()
        except OSError:
            return False
        if self._descriptor is None:
            return False
        return os.path.samestat(on_disk, os.fstat(self._descriptor))

    def release(self) -> None:
        """Free the lock; safe to call twice, and in a forked child, whose close does not free it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock; never ask about a file that this process has locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, exclusive=False)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, *, exclusive: bool) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.lockf(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
    return True
