"""Our own code: what Lightning calls for a batch, replayed within a fit without Lightning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.telemetry.by_hand import ByHand
from benchmarks.telemetry.loop import Tiny
from benchmarks.telemetry.measure import quartiles, table
from benchmarks.telemetry.variants import ours
from liquid_telemetry import OpenTelemetrySpans, PrometheusMetrics, StructlogEvents, Telemetry
from liquid_telemetry.observe.profiler import profiler_of

BLOCK, EPOCH = 1024, 1500
_STRATEGY, _MODULE = "[Strategy]SingleDeviceStrategy.", "[LightningModule]Tiny."
_NEXT = "[_TrainingEpochLoop].train_dataloader_next"
_WITHIN_STEP = (
    f"{_STRATEGY}training_step",
    *(f"{_MODULE}{hook}" for hook in ("on_before_zero_grad", "optimizer_zero_grad", "on_before_backward")),
    f"{_STRATEGY}backward",
    *(
        f"{_MODULE}{hook}"
        for hook in ("on_after_backward", "on_before_optimizer_step", "configure_gradient_clipping")
    ),
)


class _Nothing:
    __slots__ = ()
    __enter__ = __exit__ = "".format


class _Silent(dict[str, Any]):
    def __missing__(self, action: str) -> Any:
        nothing = self[action] = _Nothing()
        return nothing


class NoProfiler:
    """As cheap as a profiler can be: what is left is the replay's own time."""

    def __init__(self) -> None:
        self.profile = _Silent().__getitem__

    def start(self, action: str) -> None:
        """Nothing."""

    stop = start


def replay(
    profiler: Any, start: Callable[..., Any], end: Callable[..., Any], count: int, *things: Any
) -> float:
    """Processor time, in seconds, for the calls that Lightning 2.6 makes around ``count`` batches."""
    trainer, module, outputs, batch = things
    profile = profiler.profile
    began = time.process_time()
    for index in range(count):
        profiler.start(_NEXT)
        profiler.stop(_NEXT)
        with profile(f"{_STRATEGY}batch_to_device"), profile(f"{_MODULE}transfer_batch_to_device"):
            pass
        start(trainer, module, batch, index)
        with profile(f"{_MODULE}on_train_batch_start"):
            pass
        with profile(f"{_STRATEGY}on_train_batch_start"):
            pass
        with profile("run_training_batch"), profile(f"{_MODULE}optimizer_step"):
            for action in _WITHIN_STEP:
                with profile(action):
                    pass
        end(trainer, module, outputs, batch, index)
        with profile(f"{_MODULE}on_train_batch_end"):
            pass
    return time.process_time() - began


class Replay(Callback):
    """Replays in the first batch of a fit, and takes the time of the replay alone from it.

    Args:
        watched: The callback whose hooks are called; its tap is the Trainer's profiler.
        spans: Whether every batch gets a span, as in epochs that fit the budget of a trace (as one of ``EPOCH`` batches
            does); else few do.
    """

    def __init__(self, watched: Callback, spans: bool, blocks: int, count: int = BLOCK) -> None:
        self.watched, self.spans, self.blocks, self.count = watched, spans, blocks, count
        self.seconds: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Once."""
        if batch_idx:
            return
        hooks = self.watched.on_train_batch_start, self.watched.on_train_batch_end
        tap = profiler_of(trainer)
        things = trainer, module, outputs, batch

        def nothing(*_: Any) -> None:
            pass

        for _ in range(self.blocks):
            bare = replay(NoProfiler(), nothing, nothing, self.count, *things)
            mine = replay(tap, *hooks, self.count, *things)
            self.seconds.append((mine - bare) / self.count)
            if self.spans:
                _refill(self.watched)


def _refill(callback: Any) -> None:
    """Let the next block find a trace with room, as the next epoch would."""
    for backend in callback._observer._dispatch.backends:
        if backend.signal == "tracing":
            backend._epoch.budget.used = 0
            backend._epoch.total = 0


def own(folder: Path, blocks: int) -> None:
    """Print microseconds of own code a batch."""
    rows = []
    for name, watched, spans in _watched(folder):
        seconds = measure_own(watched, spans, blocks)
        lower, median, upper = (value * 1e6 for value in quartiles(seconds))
        rows.append((name, f"{median:.1f} ({lower:.1f} … {upper:.1f})"))
    print(f"{blocks} blocks of {BLOCK} batches, draining included; processor time\n")
    table(("", "own code, µs a batch (quartiles)"), rows)


def _watched(folder: Path) -> Iterator[tuple[str, Callback, bool]]:
    for kind in (PrometheusMetrics, StructlogEvents):
        yield kind.__name__, ours(kind, folder)()[0], False
    yield "OpenTelemetrySpans, a span for every batch", ours(OpenTelemetrySpans, folder)()[0], True
    yield "OpenTelemetrySpans, the trace's budget spent", ours(OpenTelemetrySpans, folder)()[0], False
    yield "**Telemetry**, a span for every batch", ours(Telemetry, folder)()[0], True
    yield "Telemetry, the trace's budget spent", ours(Telemetry, folder)()[0], False
    yield "gauge, span and log line by hand", ByHand(), False


def measure_own(watched: Callback, spans: bool, blocks: int) -> list[float]:
    """Seconds of own code a batch, for each block of batches."""
    replayed = Replay(watched, spans, blocks)
    trainer = Trainer(
        max_epochs=1,
        callbacks=[watched, replayed],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    data = DataLoader(TensorDataset(torch.randn(8 * EPOCH, 16)), batch_size=8)
    trainer.fit(Tiny(), data)
    return replayed.seconds
