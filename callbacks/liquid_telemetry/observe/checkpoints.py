"""Checkpoints: Lightning has no hook after a save, but its profiler brackets each one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from liquid_telemetry.observe.phases import CHECKPOINT
from liquid_telemetry.observe.state import RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Save(NamedTuple):
    """A save that has ended: Unix nanoseconds, and where training stood."""

    start_ns: int
    end_ns: int
    epoch: int
    global_step: int


class CheckpointWatch:
    """The context around ``trainer.save_checkpoint``; keeps each save until its path can be told.

    A checkpoint callback names the file it has written only after the bracket has closed.

    Args:
        state: Of the run; its phase clock gets the time.
        before: Called as a save begins, when the path of the one before is known.
        trainer: Where training stands.
    """

    def __init__(
        self, state: RunState, before: Callable[[Trainer], None], trainer: weakref.ref[Trainer]
    ) -> None:
        self._state = state
        self._before = before
        self._trainer = trainer
        self._start = 0
        self._saves: list[Save] = []

    def __enter__(self) -> None:
        if (trainer := self._trainer()) is not None:
            self._before(trainer)
        self._state.phases.enter(CHECKPOINT)
        self._start = self._state.unix_now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = self._state.unix_now
        self._state.phases.leave()
        trainer = self._trainer()
        if kind is None and trainer is not None:
            self._saves.append(Save(self._start, end, trainer.current_epoch, trainer.global_step))

    def take(self) -> list[Save]:
        """The saves not yet told."""
        saves, self._saves = self._saves, []
        return saves


class CheckpointPaths:
    """Tells which path a checkpoint callback has named since the last look."""

    def __init__(self, trainer: Trainer) -> None:
        self._told: dict[int, tuple[str, int]] = {}
        while self.newest(trainer) is not None:
            pass

    def newest(self, trainer: Trainer) -> str | None:
        """A path not told before; None for saves made by hand."""
        for callback in trainer.checkpoint_callbacks:
            path: Any = getattr(callback, "_last_checkpoint_saved", "")
            mark = (str(path), int(getattr(callback, "_last_global_step_saved", 0)))
            if path and self._told.get(id(callback)) != mark:
                self._told[id(callback)] = mark
                return str(path)
        return None
