"""Letting the exporter process ask for Python stacks: two real-time signals that nobody uses, and a file of our own."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from liquid_telemetry.spool import END_OF_STACKS

_STATUS = Path("/proc/self/status")
_choosing = threading.Lock()


class StackFile:
    """Where the threads of this process write their stacks when they are asked.

    ``ask`` is a signal with a handler in Python: it runs between two instructions of the main thread and tells of all
    threads. ``dump`` is one of ``faulthandler``'s, whose handler is in C: a thread that is stuck in C, even with the
    interpreter's lock, tells of itself alone. The exporter tries them in this order: the second is not safe for a
    thread that runs Python, and such a main thread answers the first.

    Attributes:
        ask: None where there is no free signal, or another thread than the main one trains.
        dump: None where there is no free signal.
    """

    def __init__(self, path: Path) -> None:
        self.ask: int | None = None
        self.dump: int | None = None
        self._path, self._pid = path, os.getpid()
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        if sys.platform == "linux":
            with _choosing:
                self._register()

    def _register(self) -> None:
        free = _free_signals()
        if free and threading.current_thread() is threading.main_thread():
            self.ask = free.pop()
            signal.signal(self.ask, self._answer)
            signal.siginterrupt(self.ask, False)
        if free:
            self.dump = free.pop()
            faulthandler.register(self.dump, self._descriptor, all_threads=False, chain=False)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if self._pid == os.getpid() and self._descriptor >= 0:
            faulthandler.dump_traceback(self._descriptor, all_threads=True)
            os.write(self._descriptor, END_OF_STACKS)

    def close(self) -> None:
        """Give the signals back, unless one may still be on its way: its default is to end the process."""
        if self._pid != os.getpid() or not self._may_close():
            return
        try:
            self._path.unlink()
        except FileNotFoundError:  # the exporter asks just now, or a thread has not answered yet
            if self._path.parent.exists():
                return
        if self.ask is not None:
            signal.signal(self.ask, signal.SIG_DFL)
        if self.dump is not None and signal.getsignal(self.dump) == signal.SIG_DFL:
            faulthandler.unregister(self.dump)
        os.close(self._descriptor)
        self._descriptor = -1

    def _may_close(self) -> bool:
        if self.ask is None:
            return True
        in_main = threading.current_thread() is threading.main_thread()
        return in_main and signal.getsignal(self.ask) == self._answer


def _free_signals() -> list[int]:
    """Real-time signals that are neither caught, ignored nor blocked, whoever would have done so; the middle last."""
    masks = (line.split() for line in _STATUS.read_text().splitlines() if line.startswith("Sig"))
    taken = 0
    for name, mask in masks:
        if name in ("SigBlk:", "SigIgn:", "SigCgt:"):
            taken |= int(mask, 16)
    middle = (signal.SIGRTMIN + signal.SIGRTMAX) // 2
    numbers = range(middle, signal.SIGRTMAX)
    return [
        number
        for number in reversed(numbers)
        if not taken >> (number - 1) & 1 and signal.getsignal(number) == signal.SIG_DFL
    ]
