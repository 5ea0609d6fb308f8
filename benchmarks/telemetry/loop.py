"""The loop that is observed: so small that what is added to it shows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, TensorDataset

Context = Callable[[], contextlib.AbstractContextManager[Any]]


class Tiny(LightningModule):
    """A Linear(16, 2) on batches of 8; ``logs`` makes it log its loss at every step, as people do."""

    def __init__(self, logs: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 2)
        self.logs = logs

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """The mean square of the output."""
        loss: torch.Tensor = self.layer(batch[0]).square().mean()
        if self.logs:
            self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Stopwatch(Callback):
    """Times the epoch, and the end of fit, from outside; ``each`` makes it time every batch, too."""

    def __init__(self, each: bool = False) -> None:
        self.seconds = self.processor = self.ended_at = 0.0
        self.at: list[float] = []
        if each:
            self.on_train_batch_end = self._batch_end  # type: ignore[method-assign]

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start."""
        self.start, self.spent = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.start
        self.processor = time.process_time() - self.spent

    def on_train_end(self, *_: Any) -> None:
        """What comes now is the end of fit."""
        self.ended_at = time.perf_counter()

    def _batch_end(self, *_: Any, **__: Any) -> None:
        self.at.append(time.perf_counter())


@dataclass
class Variant:
    """One way to observe the loop."""

    name: str
    callbacks: Callable[[], list[Callback]] = list
    logger: Callable[[], Logger | bool] = lambda: False
    logs: bool = False
    every: int = 50
    profiler: str | None = None
    bar: bool = False
    context: Context = contextlib.nullcontext
    results: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Timing:
    """What one fit took; seconds. ``processor`` is the time of all threads for a batch, waits left out."""

    batch: float
    processor: float
    batches: list[float]


def run_once(variant: Variant, batches: int, each: bool = False) -> Timing:
    """Fit one epoch."""
    stopwatch = Stopwatch(each)
    data = DataLoader(TensorDataset(torch.randn(8 * batches, 16)), batch_size=8)
    with variant.context():
        trainer = Trainer(
            max_epochs=1,
            callbacks=[stopwatch, *variant.callbacks()],
            logger=variant.logger(),
            log_every_n_steps=variant.every,
            profiler=variant.profiler,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=variant.bar,
        )
        trainer.fit(Tiny(variant.logs), data)
    gaps = [later - former for former, later in zip(stopwatch.at, stopwatch.at[1:], strict=False)]
    return Timing(stopwatch.seconds / batches, stopwatch.processor / batches, gaps)
