"""What observing a training loop costs, per batch, beside what people use today.

    python benchmarks/telemetry.py [--batches 2000] [--rounds 9] [--only NAME ...]

Every round runs every variant once, in a shuffled order, in one process; a variant's cost is the median over rounds of
its time less that of the bare loop in the same round. The loop is a Linear(16, 2) on batches of 8: about 0.3 ms a batch
on a quiet core, so that what is added is large against it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import platform
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import DeviceStatsMonitor, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from liquid_telemetry import OpenTelemetrySpans, PrometheusMetrics, StructlogEvents, Telemetry


class Tiny(LightningModule):
    """The loop's model; ``logs`` makes it log its loss at every step, as people do."""

    def __init__(self, logs: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 2)
        self.logs = logs

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        loss = self.layer(batch[0]).square().mean()
        if self.logs:
            self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Stopwatch(Callback):
    """Times the epoch from outside: two hooks, first in the list."""

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.start


class Empty(Callback):
    """Lightning's own cost of one more callback."""


class ByHand(Callback):
    """What people write: a gauge, a span and a log line for every batch."""

    def __init__(self) -> None:
        import structlog
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
        from prometheus_client import CollectorRegistry, Gauge

        class Nowhere(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:
                return SpanExportResult.SUCCESS

        self.gauge = Gauge("loss", "Loss", ["epoch"], registry=CollectorRegistry())
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        self.tracer = self.provider.get_tracer("by hand")
        self.lines = structlog.wrap_logger(
            structlog.PrintLogger(io.StringIO()), processors=[structlog.processors.JSONRenderer()]
        )

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
        self.span = self.tracer.start_span(
            "batch", attributes={"epoch": trainer.current_epoch, "batch": index}
        )

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        loss = outputs["loss"].item()
        self.gauge.labels(epoch=trainer.current_epoch).set(loss)
        self.span.set_attribute("loss", loss)
        self.span.end()
        self.lines.info("batch", epoch=trainer.current_epoch, batch=index, loss=loss)

    def teardown(self, *_: Any, **__: Any) -> None:
        self.provider.shutdown()


@dataclass
class Variant:
    """One way to observe the loop."""

    name: str
    callbacks: Callable[[], list[Callback]] = list
    logger: Callable[[], Logger | bool] = lambda: False
    logs: bool = False
    every: int = 50
    profiler: str | None = None
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    seconds: list[float] = field(default_factory=list)


@contextlib.contextmanager
def no_terminal() -> Iterator[None]:
    """Let a progress bar draw into a file that says it is a terminal."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with contextlib.redirect_stdout(Terminal()), contextlib.redirect_stderr(Terminal()):
        yield


def variants(folder: str) -> list[Variant]:
    """All, the bare loop first."""

    def ours(kind: type[Callback], **options: Any) -> Callable[[], list[Callback]]:
        if kind in (PrometheusMetrics, Telemetry):
            options["port"] = 0
        if kind in (StructlogEvents, Telemetry):
            options["console"] = False
        return lambda: [kind(dir=f"{folder}/runs", **options)]

    csv: Callable[[], Logger] = lambda: CSVLogger(folder)  # noqa: E731
    found = [
        Variant("bare loop"),
        Variant("one empty callback", lambda: [Empty()]),
        Variant("PrometheusMetrics", ours(PrometheusMetrics)),
        Variant("OpenTelemetrySpans", ours(OpenTelemetrySpans)),
        Variant("StructlogEvents", ours(StructlogEvents)),
        Variant("**Telemetry**, everything on", ours(Telemetry)),
        Variant("Telemetry, with SimpleProfiler", ours(Telemetry), profiler="simple"),
        Variant("SimpleProfiler alone", profiler="simple"),
        Variant("Telemetry(enabled=False)", ours(Telemetry, enabled=False)),
        Variant("gauge, span and log line by hand", lambda: [ByHand()]),
        Variant("self.log, no logger", logs=True),
        Variant("self.log, CSVLogger every 50", logger=csv, logs=True),
        Variant("self.log, CSVLogger every step", logger=csv, logs=True, every=1),
        Variant("DeviceStatsMonitor, CSVLogger every 50", lambda: [DeviceStatsMonitor(True)], csv),
        Variant("RichProgressBar", lambda: [RichProgressBar()], logs=True, context=no_terminal),
    ]
    if importlib.util.find_spec("tensorboard"):
        board: Callable[[], Logger] = lambda: TensorBoardLogger(folder)  # noqa: E731
        found.append(Variant("self.log, TensorBoard every 50", logger=board, logs=True))
        found.append(Variant("self.log, TensorBoard every step", logger=board, logs=True, every=1))
    return found


def time_once(variant: Variant, batches: int) -> float:
    """Seconds per batch of one epoch."""
    stopwatch = Stopwatch()
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
            enable_progress_bar="Progress" in variant.name,
        )
        trainer.fit(Tiny(variant.logs), data)
    return stopwatch.seconds / batches


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    lower, median, upper = statistics.quantiles(values, n=4)
    return lower, median, upper


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=2000, help="batches in an epoch")
    parser.add_argument("--rounds", type=int, default=9, help="times that every variant is run")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of variants to run")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIQUID_TELEMETRY_SPOOL"] = f"{folder}/spool"
        chosen = variants(folder)
        chosen = [
            v
            for v in chosen
            if v is chosen[0] or not options.only or any(part in v.name for part in options.only)
        ]
        for number in range(options.rounds + 1):
            for variant in random.sample(chosen, len(chosen)):
                seconds = time_once(variant, options.batches)
                if number:
                    variant.seconds.append(seconds)
    report(chosen, options.batches)


def report(chosen: list[Variant], batches: int) -> None:
    """Print the table."""
    bare = chosen[0]
    floor = statistics.median(bare.seconds)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__};"
    )
    print(f"{len(bare.seconds)} rounds of {batches} batches; bare loop {floor * 1e6:.0f} µs a batch\n")
    print("| | added µs a batch (quartiles) | of the bare loop |")
    print("|---|---:|---:|")
    for variant in chosen[1:]:
        added = [mine - theirs for mine, theirs in zip(variant.seconds, bare.seconds, strict=True)]
        lower, median, upper = (value * 1e6 for value in quartiles(added))
        print(
            f"| {variant.name} | {median:+.1f} ({lower:+.1f} … {upper:+.1f}) | {median / floor / 1e4:+.1f} % |"
        )


if __name__ == "__main__":
    main()
