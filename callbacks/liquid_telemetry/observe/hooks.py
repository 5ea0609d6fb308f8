"""The two hooks of a batch: in a cold cache, every call and every object that is touched costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.loop import ROWS
from liquid_telemetry.observe.phases import BATCH_END
from liquid_telemetry.observe.training import TrainingWatch

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

Hook = Callable[..., None]


def short_hooks(
    owner: Callable[[], Trainer | None],
    watch: TrainingWatch,
    faults: Faults,
    long_start: Hook,
    long_end: Hook,
) -> tuple[Hook, Hook]:
    """``on_train_batch_start`` and ``on_train_batch_end``, for an ordinary batch without calls that can be spared.

    Args:
        owner: The Trainer that is watched; another that has the same callback goes the long way.
        watch: Takes every batch that is not ordinary: the first, the last, one that was skipped, one of manual
            optimisation, …
        faults: Where our own faults are counted.
        long_start: The hook for any Trainer.
        long_end: The hook for any Trainer.
    """
    phases, count = watch.phases, watch.samples.count
    now, time, mark = phases.now, phases.times.append, phases.marks.append

    def on_train_batch_start(
        trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if owner() is not trainer:
            long_start(trainer, pl_module, batch, batch_idx)
            return
        try:
            loop = watch.loop
            if loop is None or loop.open is not None or batch_idx >= watch.ordinary_below:
                watch.batch_start(trainer, batch_idx)
            else:
                loop.open = batch_idx
                loop.opened_at = now()
        except Exception as error:
            faults.report("observer", error)

    def on_train_batch_end(
        trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if owner() is not trainer:
            long_end(trainer, pl_module, outputs, batch, batch_idx)
            return
        try:
            loop = watch.loop
            if loop is None or loop.open is None or batch_idx >= watch.ordinary_below or not outputs:
                watch.batch_end(trainer, outputs, batch, batch_idx)
                return
            ended = now()
            # What may fail comes before the mark: each mark has its row.
            row = batch_idx, loop.opened_at, ended, count(batch), outputs["loss"], False
            time(ended)
            mark(BATCH_END)
            rows = loop.rows
            rows.append(row)
            loop.open = None
            if ended >= loop.drain_at or len(rows) >= ROWS:
                watch.drain(trainer, loop)
        except Exception as error:
            faults.report("observer", error)

    return on_train_batch_start, on_train_batch_end
