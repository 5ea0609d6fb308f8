"""One pass over the data of one stage: batches are rows of plain readings until they are drained."""

from __future__ import annotations

from collections.abc import Sequence
from operator import sub
from typing import Any

from torch import Tensor

from liquid_telemetry.observe.clock import RunClock
from liquid_telemetry.observe.phases import PhaseClock
from liquid_telemetry.observe.records import BatchBlock

ROWS = 256
DRAIN_EVERY_NS = 1_000_000_000

Row = tuple[int, int, int, int, int, Any, bool, tuple[int, ...]]


class StageLoop:
    """Collects the batches of an epoch, tolerating any start without an end and any end without a start.

    Args:
        stage: train, validation, test or predict.
        epoch: From zero.
        clock: Of the run.
        phases: Phase clock of fit; only its count of optimizer steps is read for other stages.
        base_step: ``trainer.global_step`` less the steps that the phase clock has counted.
    """

    def __init__(self, stage: str, epoch: int, clock: RunClock, phases: PhaseClock, base_step: int) -> None:
        self.stage = stage
        self.epoch = epoch
        self.start = clock.now()
        self.phases_at_start = phases.snapshot(self.start)
        self.batches = self.samples = self.skipped = 0
        self.last_index: int | None = None
        self.learning_rates: Sequence[float] = ()
        self.last_loss: float | None = None
        self.loss_is_sampled = False
        """Whether the loss of some batches only is known."""
        self._loss_sum = 0.0
        self._loss_weight = 0
        self._clock = clock
        self._now = clock.now
        self._phases = phases
        self._base_step = base_step
        self._rows: list[Row] = []
        self._open: int | None = None
        self._opened_at = self.start
        self._drain_at = self.start + DRAIN_EVERY_NS
        self._before = self.phases_at_start

    def begin(self, index: int) -> None:
        """A batch starts; one that is still open was skipped."""
        if self._open is not None:
            self.skip()
        self._open = index
        self._opened_at = self._now()

    def end(self, index: int, samples: int, loss: Tensor | None, skipped: bool = False) -> bool:
        """A batch ends; returns whether it is time to drain."""
        now = self._now()
        start = now if self._open is None else self._opened_at
        self._open = None
        return self._append(index, start, now, samples, loss, skipped)

    def skip(self) -> None:
        """Close the open batch, if there is one, as skipped."""
        if self._open is not None:
            index, self._open = self._open, None
            self._append(index, self._opened_at, self._clock.now(), 0, None, True)

    def _append(
        self, index: int, start: int, now: int, samples: int, loss: Tensor | None, skipped: bool
    ) -> bool:
        step = self._base_step + self._phases.optimizer_steps
        phases = self._phases.snapshot(now)
        self._rows.append((index, start, now, samples, step, loss, skipped, phases))
        return now >= self._drain_at or len(self._rows) >= ROWS

    def drain(self) -> list[Row]:
        """The rows since the last drain; counts them."""
        rows, self._rows = self._rows, []
        self._drain_at = self._clock.now() + DRAIN_EVERY_NS
        if rows:
            self.batches += len(rows)
            self.samples += sum(row[3] for row in rows)
            self.skipped += sum(row[6] for row in rows)
            self.last_index = rows[-1][0]
        return rows

    def block(self, rows: Sequence[Row], losses: Sequence[float] | None, scale: float) -> BatchBlock:
        """Rows as columns; ``losses`` are those of the rows that have one, in order."""
        index, start, end, samples, steps, tensors, skipped, phases = zip(*rows, strict=True)
        offset = self._clock.unix_ns(0)
        return BatchBlock(
            stage=self.stage,
            epoch=self.epoch,
            index=index,
            start_ns=[reading + offset for reading in start],
            end_ns=[reading + offset for reading in end],
            samples=samples,
            global_step=steps,
            loss=self._spread(tensors, losses, scale),
            skipped=skipped,
            phase_ns=self._since_batch_before(phases) if self.stage == "train" else (),
        )

    def _spread(
        self, tensors: Sequence[Any], losses: Sequence[float] | None, scale: float
    ) -> Sequence[float | None]:
        values = iter(losses or ())
        return [None if tensor is None or losses is None else next(values) * scale for tensor in tensors]

    def _since_batch_before(self, phases: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        before = (self._before, *phases[:-1])
        self._before = phases[-1]
        return [tuple(map(sub, now, then)) for now, then in zip(phases, before, strict=True)]

    def count_losses(self, block: BatchBlock) -> None:
        """Add a block to the epoch's mean, weighted by samples as Lightning's own epoch mean is."""
        for loss, samples in zip(block.loss, block.samples, strict=True):
            if loss is not None:
                self._loss_sum += loss * (samples or 1)
                self._loss_weight += samples or 1
                self.last_loss = loss

    @property
    def mean_loss(self) -> float | None:
        """Sample-weighted mean of the losses counted so far."""
        return self._loss_sum / self._loss_weight if self._loss_weight else None
