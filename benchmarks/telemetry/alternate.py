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

TURN, TURNS_PER_EPOCH = 40, 25


class Way(NamedTuple):
    """What the Trainer has during a turn."""

    name: str
    callbacks: list[Callback]
    profiler: Any


class Turn(NamedTuple):
    """What a batch of a turn took; seconds."""

    wall: float
    processor: float


class Alternating(Tiny):
    """Changes the Trainer's callbacks and profiler at every turn, and notes how long a batch took in it.

    Telemetry sees the start and the end of every epoch, and its first batch; an epoch fits the budget of a trace, so
    that every batch of a turn of telemetry gets a span.
    """

    def __init__(self, telemetry: Callback) -> None:
        super().__init__()
        self.telemetry = telemetry
        self.turns: dict[str, list[Turn]] = {}
        self.ways: list[Way] = []
        self._order: list[Way] = []
        self._way: Way | None = None
        self._since = Turn(0.0, 0.0)

    def on_train_start(self) -> None:
        """The tap is in its place."""
        tap = profiler_of(self.trainer)
        plain = untapped(tap)
        self.ways = [
            Way("bare loop", [], plain),
            Way("bare loop again", [], plain),
            Way("one empty callback", [Empty()], plain),
            Way("**Telemetry**, everything on", [self.telemetry], tap),
            Way("gauge, span and log line by hand", [ByHand()], plain),
        ]

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        """Take turns; those of the first epoch do not count."""
        if index % TURN:
            return
        now = _now()
        if self._way is not None and self.current_epoch:
            spent = Turn(*((later - former) / TURN for former, later in zip(self._since, now, strict=True)))
            self.turns.setdefault(self._way.name, []).append(spent)
        if index == TURN * TURNS_PER_EPOCH:
            self._take(next(way for way in self.ways if way.callbacks == [self.telemetry]))
            self._way = None
        else:
            self._order = self._order or random.sample(self.ways, len(self.ways))
            self._way = self._order.pop()
            self._take(self._way)
        self._since = _now()

    def _take(self, way: Way) -> None:
        self.trainer.callbacks[:] = way.callbacks  # type: ignore[attr-defined]
        set_profiler(self.trainer, way.profiler)


def _now() -> Turn:
    return Turn(time.perf_counter(), time.process_time())


def alternate(folder: Path, epochs: int) -> None:
    """Print what each way adds to a batch."""
    telemetry = ours(Telemetry, folder)()[0]
    model = Alternating(telemetry)
    trainer = Trainer(
        max_epochs=1 + epochs,
        callbacks=[telemetry],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    batches = TURN * TURNS_PER_EPOCH + 1
    trainer.fit(model, DataLoader(TensorDataset(torch.randn(8 * batches, 16)), batch_size=8))
    bare = _summary(model.turns["bare loop"])
    rows = []
    for way in model.ways[1:]:
        pairs = zip(_summary(model.turns[way.name]), bare, strict=True)
        rows.append((way.name, *(f"{(mine - theirs) * 1e6:+.1f}" for mine, theirs in pairs)))
    turns = len(model.turns["bare loop"])
    print(f"{turns} turns of {TURN} batches each; bare loop {bare[0] * 1e6:.0f} µs a batch\n")
    head = ("added to the median, µs a batch", "to the lower quartile", "to the mean of processor time")
    table(("", *head), rows)


def _summary(turns: list[Turn]) -> tuple[float, float, float]:
    lower, median, _ = quartiles([turn.wall for turn in turns])
    return median, lower, statistics.mean(turn.processor for turn in turns)
