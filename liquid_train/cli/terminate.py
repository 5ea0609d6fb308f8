"""SIGTERM as an exit with 143, also before Lightning minds signals and after."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

TERMINATED = 128 + signal.SIGTERM
_LIGHTNING = "lightning.pytorch.utilities.exceptions"


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raise `SystemExit` where SIGTERM would kill, so that what is open is closed and telemetry tells of it.

    While Lightning trains it has a handler that calls this one too, and ends between two batches: then this one does
    nothing. A process forked from this one dies of SIGTERM, as ever.
    """
    usable = sys.platform != "win32" and threading.current_thread() is threading.main_thread()
    if not usable or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif signal.getsignal(number) is end:
            raise _exception()

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exception() -> SystemExit:
    """Lightning's own, by which its callbacks know a SIGTERM, once it is there."""
    kind: Any = getattr(sys.modules.get(_LIGHTNING), "SIGTERMException", SystemExit)
    return kind(TERMINATED)  # type: ignore[no-any-return]
