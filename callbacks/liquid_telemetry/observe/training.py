"""Training epochs and their batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from liquid_telemetry.errors import NonFiniteLossError
from liquid_telemetry.observe.batches import SampleCounter
from liquid_telemetry.observe.logged import callback_metrics
from liquid_telemetry.observe.loop import Rows, StageLoop
from liquid_telemetry.observe.names import pick_accuracy, pick_loss
from liquid_telemetry.observe.progress import learning_rates, measure
from liquid_telemetry.observe.pulse import EPOCH
from liquid_telemetry.observe.records import (
    BatchBlock,
    DevicePhases,
    EpochEnded,
    EpochStarted,
    GradientNorm,
    StepsLogged,
)
from liquid_telemetry.observe.run import finite_or_none
from liquid_telemetry.observe.state import RunState

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_GRADIENT_EVERY_NS = 1_000_000_000


class TrainingWatch:
    """Follows the training loop: epochs open late when a resumed one has no start, batches may be skipped.

    An epoch's record waits until the next rare hook after its end: only then are the values of its ``self.log``
    complete, and only then may they be read without a collective out of turn.

    Attributes:
        loop: The epoch under way.
        phases: Where the time goes.
        samples: Counts those of a batch.
        ordinary_below: Batches below this index whose step returned something need no more than a row: neither an
            epoch's first nor its last one, not manual optimisation, no loss to be looked for.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state
        self.loop: StageLoop | None = None
        self.phases = state.phases
        self._ended: tuple[StageLoop, EpochEnded] | None = None
        self._scale = 1.0
        self._automatic = True
        self._loss_key: str | None = None
        self._loss_found = False
        self._last_index = 0
        self.ordinary_below = 0
        self.samples = SampleCounter(state.options.batch_size)
        self._gradient_due = 0
        self._nonfinite: str | None = None
        self._device = state.device
        self._begun = False

    @property
    def measures_gradients(self) -> bool:
        """Whether ``before_optimizer_step`` has anything to do."""
        return self._state.options.gradient_norm

    def epoch_start(self, trainer: Trainer) -> None:
        """An epoch begins."""
        self.settle(trainer)
        self._open(trainer)

    def batch_start(self, trainer: Trainer, index: int) -> None:
        """A batch begins."""
        loop = self.loop or self._open(trainer)
        if self.ordinary_below == 0:
            # Not at the start of the epoch, where callbacks after ours may yet change it.
            self._scale = float(trainer.accumulate_grad_batches) if self._automatic else 1.0
        if index >= self._last_index and trainer.is_last_batch:
            loop.learning_rates = learning_rates(trainer)  # schedulers step before the batch's end is told
            if self._begun:
                self._state.dispatch.heart.begin(EPOCH)
        if self._device is not None:
            self._device.begin_batch()
        loop.begin(index)

    def batch_end(self, trainer: Trainer, outputs: Any, batch: Any, index: int) -> None:
        """A batch ended; ``outputs`` is what Lightning made of the step's return."""
        loop = self.loop or self._open(trainer)
        skipped = not outputs and self._automatic
        loss = self._loss_in(outputs, trainer)
        due = loop.end(index, self.samples.count(batch), loss, skipped)
        if not self._begun:
            self._begin(trainer, loop, index)
        self.ordinary_below = self._ordinary_below()
        if due or (loss is None and trainer.is_last_batch):
            self.drain(trainer, loop)

    def _begin(self, trainer: Trainer, loop: StageLoop, index: int) -> None:
        """The first batch of the run has ended; from here on ordinary ones need no more than a row."""
        self._begun = True
        self._state.dispatch.heart.train(loop.epoch, index, trainer.is_last_batch)

    def drain(self, trainer: Trainer, loop: StageLoop) -> None:
        """Tell the batches since the last drain, and where training stands."""
        self._state.dispatch.heart.train(
            loop.epoch, loop.rows[-1][0] if loop.rows else None, trainer.is_last_batch
        )
        # Only at the end of a batch: at the end of an epoch the read would be a collective, and of the epoch's mean.
        logged = self._state.step_values.take(callback_metrics(trainer))
        drained = self._with_logged_loss(loop, logged)
        self._tell_logged(logged)
        self._tell(trainer, loop, drained)
        self._stop_if_asked()

    def before_optimizer_step(self, module: LightningModule) -> None:
        """Gradients are complete; their norm is taken once a second, where asked for."""
        state = self._state
        if not state.options.gradient_norm or state.clock.now() < self._gradient_due:
            return
        self._gradient_due = state.clock.now() + _GRADIENT_EVERY_NS
        if (norm := gradient_norm(module)) is not None:
            state.dispatch.emit_with([norm], lambda values: GradientNorm(values[0]) if values else None)

    def epoch_end(self, trainer: Trainer) -> None:
        """An epoch ended; its checkpoint and the last of its metrics are still to come."""
        loop = self.loop
        if loop is not None:
            self._close(trainer, loop, complete=True)
            self._state.dispatch.heart.train(loop.epoch, loop.last_index, last=True)
            if self._state.options.stop_on_nonfinite:
                self._state.dispatch.settle()
                self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._state.options.stop_on_nonfinite and self._nonfinite is not None:
            raise NonFiniteLossError(self._nonfinite)

    def settle(self, trainer: Trainer, metrics: Mapping[str, Any] | None = None) -> None:
        """Tell the epoch that has ended, with everything it logged."""
        if self._ended is None:
            return
        loop, ended = self._ended
        self._ended = None
        fresh = self._state.fresh.take(callback_metrics(trainer) if metrics is None else metrics)
        self._state.step_values.take(fresh)
        names = list(fresh)
        self._state.dispatch.emit_with(
            list(fresh.values()),
            lambda values: self._finish(loop, ended, dict(zip(names, values or (), strict=False))),
        )

    def abort(self, trainer: Trainer) -> None:
        """The run ends within an epoch: tell what there is, reading nothing that might be a collective."""
        self.settle(trainer, metrics={})
        if self.loop is not None:
            self._close(trainer, self.loop, complete=False)
            self.settle(trainer, metrics={})

    def _open(self, trainer: Trainer) -> StageLoop:
        state = self._state
        self._automatic = trainer.lightning_module.automatic_optimization
        epoch, step = trainer.current_epoch, trainer.global_step
        self.loop = loop = StageLoop("train", epoch, step, state.clock, state.phases)
        expected = finite_or_none(trainer.num_training_batches)
        self._last_index = expected - 1 if expected else 0
        self.ordinary_below = 0
        start = state.clock.unix_ns(loop.start)
        state.dispatch.emit(EpochStarted("train", loop.epoch, start, expected))
        return loop

    def _ordinary_below(self) -> int:
        plain = self._automatic and self._state.options.loss_key in (None, "loss") and self._device is None
        return self._last_index if plain else 0

    def _loss_in(self, outputs: Any, trainer: Trainer) -> Tensor | None:
        """The loss that the step returned, divided by the accumulation; None leaves it to the logged values."""
        if not outputs or not (type(outputs) is dict or isinstance(outputs, Mapping)):
            return None
        if not self._loss_found:
            self._loss_key, self._loss_found = self._find_loss(outputs, trainer), True
        loss = outputs.get(self._loss_key)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            return None
        loss = loss.detach() if loss.requires_grad else loss
        return loss if self._scale == 1.0 or self._loss_key == "loss" else loss / self._scale

    def _find_loss(self, outputs: Mapping[str, Any], trainer: Trainer) -> str | None:
        """The key of the loss in the step's output; None when the user's key is that of a logged value."""
        key = self._state.options.loss_key
        if key is None or key in outputs:
            return key or "loss"
        return None if key in callback_metrics(trainer) else "loss"

    def _tell(self, trainer: Trainer, loop: StageLoop, drained: Rows) -> None:
        state, scale = self._state, self._scale

        def build(losses: Sequence[float] | None) -> BatchBlock:
            block = loop.block(drained, losses, scale)
            loop.count_losses(block)
            state.count(block)
            if block.nonfinite:
                self._nonfinite = self._nonfinite or _describe(block)
            return block

        if drained.rows:
            state.dispatch.emit_with(drained.losses, build)
        if self._device is not None:
            state.dispatch.emit(DevicePhases(self._device.take()))
        state.dispatch.emit(measure(trainer, state, loop.epoch))
        state.dispatch.poll()

    def _tell_logged(self, logged: Mapping[str, Tensor]) -> None:
        names = list(logged)

        def build(values: Sequence[float] | None) -> StepsLogged | None:
            metrics = dict(zip(names, values or (), strict=False))
            accuracy = pick_accuracy(metrics, self._state.options.accuracy_key)
            return StepsLogged(metrics, metrics[accuracy] if accuracy else None) if metrics else None

        if names:
            self._state.dispatch.emit_with(list(logged.values()), build)

    def _with_logged_loss(self, loop: StageLoop, logged: Mapping[str, Tensor]) -> Rows:
        """Where no step returned a loss (manual optimisation may not), the logged one stands for the last batch."""
        drained = loop.drain()
        if not drained.rows or drained.losses:
            return drained
        name = pick_loss(logged, self._state.options.loss_key)
        if name is None:
            return drained
        loop.loss_is_sampled = True
        *rows, (index, start, end, samples, _, skipped) = drained.rows
        value = logged[name].detach() / self._scale
        return drained._replace(rows=[*rows, (index, start, end, samples, value, skipped)])

    def _close(self, trainer: Trainer, loop: StageLoop, complete: bool) -> None:
        loop.skip() if complete else loop.break_off()
        end = self._state.clock.now()
        phases = self._state.phases.snapshot(end)
        self._tell(trainer, loop, loop.drain())
        self.loop = None
        self._state.epochs += complete
        rates = loop.learning_rates or learning_rates(trainer)
        ended = EpochEnded(
            stage="train",
            epoch=loop.epoch,
            start_ns=self._state.clock.unix_ns(loop.start),
            end_ns=self._state.clock.unix_ns(end),
            batches=loop.batches,
            samples=loop.samples,
            global_step=trainer.global_step,
            skipped=loop.skipped,
            learning_rate=rates[0] if rates else None,
            phase_ns=[now - then for now, then in zip(phases, loop.phases_at_start, strict=True)],
            complete=complete,
        )
        self._ended = loop, ended

    def _finish(self, loop: StageLoop, ended: EpochEnded, metrics: dict[str, float]) -> EpochEnded:
        validated = self._state.validated
        if validated is None or validated.epoch != ended.epoch:
            validated = None
        options = self._state.options
        accuracy = pick_accuracy(metrics, options.accuracy_key)
        loss = loop.mean_loss
        if loss is None or loop.loss_is_sampled:
            loss = metrics.get(pick_loss(metrics, options.loss_key) or "", loss)
        return replace(
            ended,
            loss=loss,
            accuracy=metrics[accuracy] if accuracy else None,
            metrics=metrics,
            val_loss=validated.loss if validated else None,
            val_accuracy=validated.accuracy if validated else None,
        )


def _describe(block: BatchBlock) -> str:
    at = block.nonfinite[0]
    place = f"epoch {block.epoch}, batch {int(block.index[at])}"
    return f"the training loss was {block.loss[at]} in {place}; stop_on_nonfinite=True ends the run"


def gradient_norm(module: LightningModule) -> Tensor | None:
    """L2 norm of all gradients, on their device."""
    norms = [torch.linalg.vector_norm(p.grad.detach()) for p in module.parameters() if p.grad is not None]
    return (
        torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms])) if norms else None
    )
