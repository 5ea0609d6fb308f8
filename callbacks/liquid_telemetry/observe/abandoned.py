"""Runs whose exception did not reach us, when the process ends: another callback's ``on_exception`` had raised."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from traceback import walk_tb
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from liquid_telemetry.observe.observer import Observer

_observers: WeakKeyDictionary[Observer, int] = WeakKeyDictionary()


def tell_at_exit(observer: Observer) -> None:
    """Let the observer tell, when this process ends by an uncaught exception of its Trainer's, what it ended by."""
    if not _observers:
        atexit.register(_tell)
    _observers[observer] = os.getpid()


def _tell() -> None:
    error: BaseException | None = getattr(sys, "last_value", None)
    for observer, pid in list(_observers.items()):
        trainer = observer.trainer()
        if error is None or trainer is None or pid != os.getpid():
            continue
        if observer.is_open and _passed_a_trainer(error):
            with suppress(Exception):
                observer.exception(trainer, error)
    _observers.clear()


def _passed_a_trainer(error: BaseException) -> bool:
    """Whether the exception came through one of Lightning's Trainer functions; a notebook keeps older ones."""
    return any(
        frame.f_code.co_name == "_call_and_handle_interrupt" for frame, _ in walk_tb(error.__traceback__)
    )
