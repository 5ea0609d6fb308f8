"""Checkpoints: Lightning has no hook after a save, but its profiler brackets each one."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.phases import CHECKPOINT
from liquid_telemetry.observe.records import CheckpointSaved
from liquid_telemetry.observe.state import RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_FRAMES = 6


class CheckpointWatch:
    """The context around ``trainer.save_checkpoint``.

    Args:
        state: Of the run; its phase clock gets the time.
        faults: Where our own faults are counted; Lightning would let them end the training.
        trainer: Where training stands.
        before: Called as a save begins.
    """

    def __init__(
        self,
        state: RunState,
        faults: Faults,
        trainer: weakref.ref[Trainer],
        before: Callable[[Trainer], None],
    ) -> None:
        self._state = state
        self._faults = faults
        self._trainer = trainer
        self._before = before
        self._start = 0

    def __enter__(self) -> None:
        trainer = self._trainer()
        self._state.dispatch.heart.save(True)
        with self._faults.guard("observer"):
            if trainer is not None:
                self._before(trainer)
        self._state.phases.enter(CHECKPOINT)
        self._start = self._state.unix_now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = self._state.unix_now
        self._state.phases.leave()
        self._state.dispatch.heart.save(False)
        trainer = self._trainer()
        if kind is None and trainer is not None and self._state.announced:
            with self._faults.guard("observer"):
                path, epoch, step = saved_path(), trainer.current_epoch, trainer.global_step
                self._state.dispatch.emit(CheckpointSaved(path, epoch, step, self._start, end))


def saved_path() -> str | None:
    """The argument of the ``Trainer.save_checkpoint`` that is under way further up the stack.

    The bracket tells no path, and checkpoint callbacks name theirs only later and in private.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame is None:
            break
        if frame.f_code.co_name == "save_checkpoint" and "filepath" in frame.f_locals:
            return str(frame.f_locals["filepath"])
        frame = frame.f_back
    return None
