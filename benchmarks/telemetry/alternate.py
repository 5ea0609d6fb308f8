"""Ways of observing that take turns within one run, every forty batches: steadier than run against run."""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.telemetry.by_hand import ByHand, Empty
from benchmarks.telemetry.loop import Tiny
from benchmarks.telemetry.measure import quartiles, table
from benchmarks.telemetry.variants import ours
from liquid_telemetry import Telemetry
from liquid_telemetry.observe.profiler import profiler_of, set_profiler, untapped

TURN = 40


class Way(NamedTuple):
    """What the Trainer has during a turn."""

    name: str
    callbacks: list[Callback]
    profiler: Any


class Alternating(Tiny):
    """Changes the Trainer's callbacks and profiler at every turn, and notes how long a batch took in it."""

    def __init__(self, telemetry: Callback) -> None:
        super().__init__()
        self.telemetry = telemetry
        self.seconds: dict[str, list[float]] = {}
        self._ways: list[Way] = []
        self._order: list[Way] = []
        self._way: Way | None = None
        self._since = 0.0

    def on_train_start(self) -> None:
        """The tap is in its place."""
        tap = profiler_of(self.trainer)
        plain = untapped(tap)
        self._ways = [
            Way("bare loop", [], plain),
            Way("bare loop again", [], plain),
            Way("one empty callback", [Empty()], plain),
            Way("**Telemetry**, everything on", [self.telemetry], tap),
            Way("gauge, span and log line by hand", [ByHand()], plain),
        ]

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        """Take turns; the first ones do not count."""
        if index % TURN == 0:
            now = time.perf_counter()
            if self._way is not None and index > TURN * 50:
                self.seconds.setdefault(self._way.name, []).append((now - self._since) / TURN)
            self._order = self._order or random.sample(self._ways, len(self._ways))
            self._take(self._order.pop())
            self._since = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        """Put everything back."""
        self._take(next(way for way in self._ways if way.callbacks == [self.telemetry]))

    def _take(self, way: Way) -> None:
        self._way = way
        self.trainer.callbacks[:] = way.callbacks  # type: ignore[attr-defined]
        set_profiler(self.trainer, way.profiler)


def alternate(folder: Path, count: int) -> None:
    """Print what each way adds to a batch."""
    telemetry = ours(Telemetry, folder)()[0]
    model = Alternating(telemetry)
    trainer = Trainer(
        max_epochs=1,
        callbacks=[telemetry],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(torch.randn(8 * count, 16)), batch_size=8))
    bare = quartiles(model.seconds["bare loop"])
    rows = []
    for way in model._ways[1:]:
        lower, median, _ = quartiles(model.seconds[way.name])
        rows.append((way.name, f"{(median - bare[1]) * 1e6:+.1f}", f"{(lower - bare[0]) * 1e6:+.1f}"))
    turns = statistics.mean(map(len, model.seconds.values()))
    print(f"{turns:.0f} turns of {TURN} batches each; bare loop {bare[1] * 1e6:.0f} µs a batch\n")
    table(("", "added to the median, µs a batch", "added to the lower quartile"), rows)
