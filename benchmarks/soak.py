"""A long run under telemetry and scrapes: does anything grow, is every count exact?

    python -m benchmarks.soak [--batches 200000]

Trains a tiny model for many epochs with validation and checkpoints while another process scrapes ten times a second;
prints what the run holds along the way, and what an ordinary batch costs there. Exits with 1 when a count is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import re
import statistics
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.telemetry.loop import Tiny
from benchmarks.telemetry.measure import machine, scratch, table
from benchmarks.telemetry.scrapes import scraped
from liquid_telemetry import Telemetry

PER_EPOCH, VALIDATED, SAMPLES = 10_000, 50, 8


class Validated(Tiny):
    """The tiny model, with a validation."""

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Log the loss."""
        self.log("val_loss", self.layer(batch[0]).square().mean())


class Gauge(Callback):
    """Notes, ten times a run, what the process and the run's files hold.

    Args:
        telemetry: Whose run it is.
        every: Batches between two notes.
        spool: Of the exporter.
    """

    def __init__(self, telemetry: Telemetry, every: int, spool: Path) -> None:
        self.telemetry, self.every, self.spool = telemetry, every, spool
        self.rows: list[tuple[str, ...]] = []
        self._seen = 0
        self._times: list[float] = []
        self._last = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Wait for the exporter, which starts in the background: every row counts its series."""
        run, last = self.telemetry.run, time.monotonic() + 30
        assert run is not None
        while run.metrics_url is None and time.monotonic() < last:
            time.sleep(0.05)

    def on_train_batch_start(self, *_: Any) -> None:
        """The time from here to the end hook is the batch's."""
        self._last = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Note."""
        self._times.append(time.perf_counter() - self._last)
        self._seen += 1
        if self._seen == 1000 or self._seen % self.every == 0:
            self.rows.append(self._row())
            self._times.clear()

    def _row(self) -> tuple[str, ...]:
        run, process = self.telemetry.run, psutil.Process()
        assert run is not None
        assert run.metrics_url is not None
        with urllib.request.urlopen(run.metrics_url) as answer:
            series = sum(not line.startswith(b"#") for line in answer)
        return (
            f"{self._seen:,}",
            f"{statistics.median(self._times[-1000:]) * 1e6:.0f}",
            f"{process.memory_info().rss / 1e6:.1f}",
            str(process.num_fds()),
            str(threading.active_count()),
            str(series),
            f"{_size(self.spool / 'runs') / 1e3:.1f}",
            f"{_size(run.dir / 'events.jsonl') / 1e3:.1f}",
            f"{sum(map(_size, run.dir.glob('traces*.jsonl'))) / 1e6:.1f}",
        )


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


HEAD = (
    "batches",
    "µs a batch",
    "memory, MB",
    "files open",
    "threads",
    "series",
    "spool, kB",
    "log, kB",
    "traces, MB",
)


def train(batches: int, folder: Path) -> tuple[Gauge, Path]:
    """Train; returns the notes and the run's directory."""
    telemetry = Telemetry(port=0, dir=str(folder / "runs"), console=False)
    gauge = Gauge(telemetry, batches // 10, folder / "spool")
    per_epoch = min(PER_EPOCH, batches)
    train_data = DataLoader(TensorDataset(torch.randn(SAMPLES * per_epoch, 16)), batch_size=SAMPLES)
    val_data = DataLoader(TensorDataset(torch.randn(SAMPLES * VALIDATED, 16)), batch_size=SAMPLES)
    trainer = Trainer(
        max_epochs=batches // per_epoch,
        callbacks=[telemetry, gauge, ModelCheckpoint(folder / "kept", save_top_k=1)],
        logger=False,
        accelerator="cpu",
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    with scraped(10)():
        trainer.fit(Validated(), train_data, val_data)
    assert telemetry.run is not None
    return gauge, telemetry.run.dir


def wrong(batches: int, run_dir: Path, spool: Path) -> Iterator[str]:
    """Counts that are not exact."""
    per_epoch = min(PER_EPOCH, batches)
    epochs = batches // per_epoch
    exposition = next((spool / "runs").glob("*/0.prom")).read_text()

    def sample(name: str) -> float:
        found = re.search(rf"^liquid_nn_{re.escape(name)} (\S+)", exposition, re.MULTILINE)
        return float(found[1]) if found else float("nan")

    labels = '{model_name="Validated",stage="train"}'
    counted: dict[str, tuple[Callable[[], float], int]] = {
        "batches_total": (lambda: sample(f"training_batches_total{labels}"), batches),
        "samples_total": (lambda: sample(f"training_samples_total{labels}"), SAMPLES * batches),
        "batch durations": (lambda: sample(f"training_batch_duration_seconds_count{labels}"), batches),
        "epochs in the log": (lambda: len(_events(run_dir, "training_epoch_completed")), epochs),
        "checkpoints in the log": (lambda: len(_events(run_dir, "checkpoint_saved")), epochs),
    }
    for what, (count, expected) in counted.items():
        if count() != expected:
            yield f"{what}: {count()} instead of {expected}"
    yield from _wrong_spans(run_dir)


def _events(run_dir: Path, name: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (run_dir / "events.jsonl").open())
    return [line for line in lines if line["event"] == name]


def _wrong_spans(run_dir: Path) -> Iterator[str]:
    """Each epoch span says how many batches it kept: as many are there."""
    spans: dict[str, int] = {}
    told: dict[str, int] = {}
    for part in run_dir.glob("traces*.jsonl"):
        for line in part.open():
            for span in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]:
                if span["name"] == "train batch":
                    spans[span["parentSpanId"]] = spans.get(span["parentSpanId"], 0) + 1
                for attribute in span["attributes"] if span["name"] == "train epoch" else ():
                    if attribute["key"].endswith("batches.recorded"):
                        told[span["spanId"]] = int(attribute["value"]["intValue"])
    if spans != told:
        yield f"spans of batches: {sum(spans.values())} instead of the {sum(told.values())} told"


def main() -> int:
    """Run, print, check."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batches", type=int, default=200_000, help="batches in all (default: 200000)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with scratch() as folder:
        with contextlib.redirect_stderr(sys.stdout):
            gauge, run_dir = train(options.batches, folder)
        print(f"\nMachine: {machine()}.\n")
        table(HEAD, gauge.rows)
        errors = list(wrong(options.batches, run_dir, folder / "spool"))
    print("\n".join(errors) or "every count is exact")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
