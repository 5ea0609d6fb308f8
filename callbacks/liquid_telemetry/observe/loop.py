"""One pass over the data of one stage: batches are rows of plain readings until they are drained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from liquid_telemetry.observe.clock import RunClock
from liquid_telemetry.observe.phases import PhaseClock
from liquid_telemetry.observe.records import BatchBlock

ROWS = 1024
DRAIN_EVERY_NS = 1_000_000_000

Row = tuple[int, int, int, int, "Tensor | None", bool]
"""Index, start, end, samples, loss, skipped."""


class Rows(NamedTuple):
    """Batches since the last drain."""

    rows: Sequence[Row]
    global_step: np.ndarray[tuple[int], np.dtype[np.int64]]
    phase_ns: np.ndarray[tuple[int, int], np.dtype[np.int64]]

    @property
    def losses(self) -> list[Tensor]:
        """Those that are known, in order."""
        return [row[4] for row in self.rows if row[4] is not None]


class StageLoop:
    """Collects the batches of an epoch, tolerating any start without an end and any end without a start.

    Args:
        stage: train, validation, test or predict.
        epoch: From zero.
        global_step: ``trainer.global_step`` now.
        clock: Of the run.
        phases: Phase clock of fit; told of the ends of batches of training only.

    Attributes:
        open: Index of the batch that is under way.
        opened_at: When it began.
        rows: Batches that have ended since the last drain.
        drain_at: When the next one is due.
        unfinished: Whether the run has ended within the last batch.
    """

    def __init__(self, stage: str, epoch: int, global_step: int, clock: RunClock, phases: PhaseClock) -> None:
        self.stage = stage
        self.epoch = epoch
        self.start = clock.now()
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
        self._training = stage == "train"
        self._step = global_step
        self.rows: list[Row] = []
        self.open: int | None = None
        self.unfinished = False
        self.opened_at = self.start
        self.drain_at = self.start + DRAIN_EVERY_NS
        if self._training:
            self.phases_at_start = phases.snapshot(self.start)
            phases.restart_batch()
            self._step -= phases.optimizer_steps

    def begin(self, index: int) -> None:
        """A batch starts; one that is still open was skipped."""
        if self.open is not None:
            self.skip()
        self.open = index
        self.opened_at = self._now()

    def end(self, index: int, samples: int, loss: Tensor | None, skipped: bool = False) -> bool:
        """A batch ends; returns whether it is time to drain."""
        now = self._now()
        start = now if self.open is None else self.opened_at
        self.open = None
        if self._training:
            self._phases.end_batch(now)
        rows = self.rows
        rows.append((index, start, now, samples, loss, skipped))
        return now >= self.drain_at or len(rows) >= ROWS

    def skip(self) -> None:
        """Close the open batch, if there is one, as skipped."""
        if self.open is not None:
            self.end(self.open, 0, None, True)

    def break_off(self) -> None:
        """The run ends; so does the batch that is under way."""
        if self.open is not None:
            self.unfinished = True
            self.end(self.open, 0, None)

    def drain(self) -> Rows:
        """The rows since the last drain; counts them."""
        rows, self.rows = self.rows, []
        self.drain_at = self._clock.now() + DRAIN_EVERY_NS
        if rows:
            self.batches += len(rows)
            self.samples += sum([row[3] for row in rows])
            self.skipped += sum([row[5] for row in rows])
            self.last_index = rows[-1][0]
        if self._training:
            phase_ns, steps = self._phases.take_batches()
            return Rows(rows, self._step + steps, phase_ns)
        return Rows(rows, np.full(len(rows), self._step), np.zeros((0, 0), np.int64))

    def block(self, drained: Rows, losses: Sequence[float] | None, scale: float) -> BatchBlock:
        """Rows as columns; ``losses`` are those of the rows that have one, in order."""
        index, start, end, samples, tensors, skipped = zip(*drained.rows, strict=True)
        offset = self._clock.unix_ns(0)
        return BatchBlock(
            stage=self.stage,
            epoch=self.epoch,
            index=np.array(index),
            start_ns=np.array(start) + offset,
            end_ns=np.array(end) + offset,
            samples=np.array(samples),
            global_step=drained.global_step,
            loss=_spread(tensors, losses, scale),
            skipped=skipped,
            phase_ns=drained.phase_ns,
            unfinished=self.unfinished,
        )

    def count_losses(self, block: BatchBlock) -> None:
        """Add a block to the epoch's mean, weighted by samples as Lightning's own epoch mean is."""
        values, where = block.known_losses
        if len(values):
            weights = np.maximum(block.samples[where], 1)
            self._loss_sum += float(values @ weights)
            self._loss_weight += int(weights.sum())
            self.last_loss = float(values[-1])

    @property
    def mean_loss(self) -> float | None:
        """Sample-weighted mean of the losses counted so far."""
        return self._loss_sum / self._loss_weight if self._loss_weight else None


def _spread(
    tensors: Sequence[Tensor | None], losses: Sequence[float] | None, scale: float
) -> Sequence[float | None]:
    if losses is not None and len(losses) == len(tensors):
        return losses if scale == 1.0 else [loss * scale for loss in losses]
    values = iter(losses or ())
    return [None if tensor is None or losses is None else next(values) * scale for tensor in tensors]
