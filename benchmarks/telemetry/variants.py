"""What is compared: our callbacks, and what people use today."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import DeviceStatsMonitor, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from benchmarks.telemetry.by_hand import ByHand, Empty, provider
from benchmarks.telemetry.loop import Variant
from liquid_telemetry import OpenTelemetrySpans, PrometheusMetrics, StructlogEvents, Telemetry


def ours(kind: Any, folder: Path, **options: Any) -> Callable[[], list[Callback]]:
    """One of our callbacks, alone."""
    if kind in (PrometheusMetrics, Telemetry):
        options["port"] = 0
    if kind in (StructlogEvents, Telemetry):
        options["console"] = False
    return lambda: [kind(dir=str(folder / "runs"), **options)]


def variants(folder: Path) -> list[Variant]:
    """All, the bare loop first."""
    return [
        Variant("bare loop"),
        Variant("bare loop again"),
        Variant("one empty callback", lambda: [Empty()]),
        Variant("PrometheusMetrics", ours(PrometheusMetrics, folder)),
        Variant("OpenTelemetrySpans", ours(OpenTelemetrySpans, folder)),
        Variant("StructlogEvents", ours(StructlogEvents, folder)),
        Variant("**Telemetry**, everything on", ours(Telemetry, folder)),
        Variant("Telemetry(enabled=False)", ours(Telemetry, folder, enabled=False)),
        Variant("Telemetry, your own tracer provider", _with_provider(folder)),
        Variant("SimpleProfiler alone", profiler="simple"),
        Variant("Telemetry, with SimpleProfiler", ours(Telemetry, folder), profiler="simple"),
        Variant("gauge, span and log line by hand", lambda: [ByHand()]),
        *_loggers(folder),
    ]


def _with_provider(folder: Path) -> Callable[[], list[Callback]]:
    return lambda: [Telemetry(port=0, console=False, dir=str(folder / "runs"), tracer_provider=provider())]


def _loggers(folder: Path) -> Iterator[Variant]:
    def csv() -> Logger:
        return CSVLogger(folder)

    def board() -> Logger:
        return TensorBoardLogger(folder)

    def monitor() -> list[Callback]:
        return [DeviceStatsMonitor(True)]

    yield Variant("self.log, no logger", logs=True)
    yield Variant("self.log, CSVLogger every 50", logger=csv, logs=True)
    yield Variant("self.log, CSVLogger every step", logger=csv, logs=True, every=1)
    if importlib.util.find_spec("tensorboard"):
        yield Variant("self.log, TensorBoardLogger every 50", logger=board, logs=True)
        yield Variant("self.log, TensorBoardLogger every step", logger=board, logs=True, every=1)
    yield Variant("DeviceStatsMonitor, CSVLogger every 50", monitor, csv)
    yield Variant("DeviceStatsMonitor, CSVLogger every step", monitor, csv, every=1)
    yield Variant("RichProgressBar", lambda: [RichProgressBar()], logs=True, bar=True, context=_terminal)


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """Let a progress bar draw into a file that says it is a terminal."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with contextlib.redirect_stdout(Terminal()), contextlib.redirect_stderr(Terminal()):
        yield
