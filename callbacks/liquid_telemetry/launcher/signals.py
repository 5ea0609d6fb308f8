"""Signals as events: all of them are blocked, and taken one by one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass

_FAULTS = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP", "SIGKILL", "SIGSTOP")
_JOB_CONTROL = ("SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCONT")  # stop and go on with the whole process group
_OUR_OWN = ("SIGPIPE", "SIGXFSZ")
_BY_KERNEL = 0x80  # si_code SI_KERNEL
_POLL = 0.1
_OF_TERMINALS = (signal.SIGINT, signal.SIGQUIT)

ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""Signals that mean: leave."""


@dataclass(frozen=True)
class Received:
    """A signal.

    Args:
        number: Which.
        sender: Process id, 0 where that is not known.
        by_terminal: Whether the kernel sent it to the whole process group, as for Ctrl-C.
    """

    number: int
    sender: int = 0
    by_terminal: bool = False


def handled() -> Set[int]:
    """Every signal that the launcher takes: those that it passes on, and that of a child's end."""
    left = {getattr(signal, name, None) for name in (*_FAULTS, *_JOB_CONTROL, *_OUR_OWN)}
    return {int(number) for number in signal.valid_signals() if number not in left}


class Inbox:
    """Blocks the signals from its making to the end of the process, so that none is lost."""

    def __init__(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some parents leave it, ends would be lost
        self._numbers = handled()
        self.mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def take(self, timeout: float) -> Received | None:
        """Wait for a signal; None when there is none within ``timeout`` seconds, or less on macOS."""
        if not hasattr(signal, "sigtimedwait"):
            return self._poll(min(timeout, _POLL))
        info = signal.sigtimedwait(self._numbers, timeout)
        if info is None:
            return None
        return Received(info.si_signo, info.si_pid, info.si_code == _BY_KERNEL)

    def close(self) -> None:
        """Take signals as before; what has come meanwhile was meant for the command, and is dropped."""
        while self.take(0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask_before)

    def _poll(self, timeout: float) -> Received | None:
        pending = signal.sigpending() & self._numbers
        if not pending:
            time.sleep(timeout)
            return None
        number = signal.sigwait(pending)
        return Received(number, by_terminal=number in _OF_TERMINALS and _has_terminal())


def _has_terminal() -> bool:
    with suppress(OSError):
        return os.isatty(0)
    return False
