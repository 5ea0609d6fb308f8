"""How a process that is not our child ended, as far as Linux tells: by a pidfd, or by what a zombie leaves."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import struct
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from liquid_telemetry.spool import identity

if sys.platform != "win32":
    import fcntl

MAX_OPEN = 256
"""How many processes are watched at once; of others only what a zombie leaves is known."""

_GET_INFO = 0xC040FF0B  # ioctl PIDFD_GET_INFO with a struct pidfd_info of 64 bytes
_INFO_EXIT = 8
_SIZE, _EXIT_CODE = 64, 60
_open = 0


@dataclass(frozen=True)
class Exit:
    """The end of a process: an exit code or a signal."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def of_status(cls, status: int) -> Exit:
        """Read a wait status."""
        number = status & 0x7F
        return cls(signal=number) if number else cls(code=status >> 8 & 0xFF)

    @property
    def signal_name(self) -> str | None:
        """Such as ``SIGKILL``."""
        if self.signal is None:
            return None
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with code {self.code}"
        return f"killed by signal {self.signal} ({self.signal_name})"


class ExitWatch:
    """Waits for the end of one process without being its parent.

    Args:
        pid: The process, as its own record names it.
        known_as: Its :func:`identity`; a process that has another is not watched.

    Attributes:
        found: How it ended, once known.
        settled: Whether that will not change any more.
    """

    def __init__(self, pid: int, known_as: str | None) -> None:
        self.found: Exit | None = None
        self.settled = False
        self._pid, self._identity = pid, known_as
        self._descriptor = _open_pidfd(pid) if known_as is not None else None
        self.matches = known_as is not None and identity(pid) == known_as
        """Whether the pid named that very process when the watch began."""
        self.ended: float | None = None
        """Unix seconds of its end, where an event loop was there to note that."""
        self._close = weakref.finalize(self, _close_pidfd, self._descriptor, self._listen())
        if not self.matches:
            self.close()
            self.settled = True

    def look(self) -> None:
        """See whether the end is known; the process no longer holds its lock."""
        if self.settled:
            return
        if self._is_running():
            return
        status = self._of_reaped()
        if status is None:
            status = self._of_zombie()
        if status is None:
            status = self._of_reaped()  # it may have been reaped between the two
        if status is None and identity(self._pid) == self._identity:
            return
        self.found = None if status is None else Exit.of_status(status)
        self.settled = True
        self.close()

    def close(self) -> None:
        """Give up the descriptor; safe to call twice."""
        self._close()
        self._descriptor = None

    def _listen(self) -> asyncio.AbstractEventLoop | None:
        """Have the running event loop note the moment of the end."""
        descriptor, this = self._descriptor, weakref.ref(self)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        if descriptor is None:
            return None

        def note() -> None:
            loop.remove_reader(descriptor)
            if (watch := this()) is not None:
                watch.ended = time.time()

        loop.add_reader(descriptor, note)
        return loop

    def _is_running(self) -> bool:
        if self._descriptor is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def _of_reaped(self) -> int | None:
        """The wait status of a process that its parent has collected (Linux 6.15)."""
        if self._descriptor is None:
            return None
        info = bytearray(_SIZE)
        struct.pack_into("=Q", info, 0, _INFO_EXIT)
        try:
            fcntl.ioctl(self._descriptor, _GET_INFO, info)
        except OSError:
            return None
        (mask,) = struct.unpack_from("=Q", info)
        return int(struct.unpack_from("=i", info, _EXIT_CODE)[0]) if mask & _INFO_EXIT else None

    def _of_zombie(self) -> int | None:
        """The wait status of a process that its parent has not collected yet."""
        if identity(self._pid) != self._identity:
            return None
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return int(fields[-1]) if fields and fields[0] == b"Z" else None


def _open_pidfd(pid: int) -> int | None:
    global _open
    if sys.platform != "linux" or _open >= MAX_OPEN:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    _open += 1
    return descriptor


def _close_pidfd(descriptor: int | None, loop: asyncio.AbstractEventLoop | None) -> None:
    global _open
    if descriptor is not None:
        if loop is not None and not loop.is_closed():
            loop.remove_reader(descriptor)
        _open -= 1
        os.close(descriptor)
