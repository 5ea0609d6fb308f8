"""Passes over validation, test and prediction data, within a training epoch or alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from liquid_telemetry.observe.batches import SampleCounter
from liquid_telemetry.observe.logged import callback_metrics
from liquid_telemetry.observe.loop import StageLoop
from liquid_telemetry.observe.names import is_same, pick_accuracy, pick_loss, scalars
from liquid_telemetry.observe.phases import VALIDATION
from liquid_telemetry.observe.progress import measure
from liquid_telemetry.observe.records import EpochEnded, EpochStarted
from liquid_telemetry.observe.run import finite_or_none
from liquid_telemetry.observe.state import RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor


class EvaluationWatch:
    """Follows an evaluation loop; the sanity check is not a validation and is only timed."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._loop: StageLoop | None = None
        self._before: Mapping[str, Any] = {}
        self._timing = False
        self._samples = SampleCounter(state.options.batch_size)

    def start(self, trainer: Trainer, stage: str) -> None:
        """A pass begins."""
        self._state.phases.enter(VALIDATION)
        self._timing = True
        if trainer.sanity_checking:
            return
        state = self._state
        state.dispatch.heart.evaluate(stage)
        self._before = scalars(callback_metrics(trainer))
        epoch, step = trainer.current_epoch, trainer.global_step
        self._loop = StageLoop(stage, epoch, step, state.clock, state.phases)
        start = state.clock.unix_ns(self._loop.start)
        state.dispatch.emit(EpochStarted(stage, self._loop.epoch, start, _expected(trainer, stage)))

    def batch_start(self, index: int) -> None:
        """A batch begins."""
        if self._loop is not None:
            self._loop.begin(index)

    def batch_end(self, trainer: Trainer, batch: Any, index: int) -> None:
        """A batch ended."""
        if self._loop is None:
            self._state.phases.compact()
        elif self._loop.end(index, self._samples.count(batch), None):
            self._drain(trainer, self._loop)
            self._state.dispatch.heart.beat()

    def end(self, trainer: Trainer) -> None:
        """A pass ended; Lightning has computed everything it logged."""
        if self._loop is not None:
            before = self._before
            logged = scalars(callback_metrics(trainer))
            fresh = {name: value for name, value in logged.items() if not is_same(value, before.get(name))}
            self._close(trainer, self._loop, fresh, complete=True)
        self._stop_timing()

    def abort(self, trainer: Trainer) -> None:
        """The run ends within a pass."""
        if self._loop is not None:
            self._close(trainer, self._loop, {}, complete=False)
        self._stop_timing()

    def _stop_timing(self) -> None:
        if self._timing:
            self._timing = False
            self._state.dispatch.heart.evaluate("")
            self._state.phases.leave()

    def _drain(self, trainer: Trainer, loop: StageLoop) -> None:
        state = self._state
        drained = loop.drain()
        if drained.rows:
            state.dispatch.emit(loop.block(drained, None, 1.0))
        state.dispatch.emit(measure(trainer, state, loop.epoch))
        state.dispatch.poll()

    def _close(self, trainer: Trainer, loop: StageLoop, fresh: dict[str, Tensor], complete: bool) -> None:
        loop.skip() if complete else loop.break_off()
        end = self._state.clock.now()
        self._drain(trainer, loop)
        self._loop = None
        self._state.fresh.take(fresh)
        self._state.step_values.take(fresh)
        ended = EpochEnded(
            stage=loop.stage,
            epoch=loop.epoch,
            start_ns=self._state.clock.unix_ns(loop.start),
            end_ns=self._state.clock.unix_ns(end),
            batches=loop.batches,
            samples=loop.samples,
            global_step=trainer.global_step,
            skipped=loop.skipped,
            complete=complete,
        )
        names = list(fresh)
        self._state.dispatch.emit_with(
            list(fresh.values()),
            lambda values: self._finish(ended, dict(zip(names, values or (), strict=False))),
        )

    def _finish(self, ended: EpochEnded, metrics: dict[str, float]) -> EpochEnded:
        options = self._state.options
        loss, accuracy = pick_loss(metrics, options.loss_key), pick_accuracy(metrics, options.accuracy_key)
        record = replace(
            ended,
            loss=metrics[loss] if loss else None,
            accuracy=metrics[accuracy] if accuracy else None,
            metrics=metrics,
        )
        if record.stage == "validation":
            self._state.validated = record
        return record


def _expected(trainer: Trainer, stage: str) -> int | None:
    counts = {
        "validation": trainer.num_val_batches,
        "test": trainer.num_test_batches,
        "predict": trainer.num_predict_batches,
    }[stage]
    return finite_or_none(sum(counts) if isinstance(counts, list) else counts)
