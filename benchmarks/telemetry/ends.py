"""What telemetry costs before the first batch: importing it, and the setup of a run, in new interpreters."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable

from benchmarks.telemetry.collectors import nobody
from benchmarks.telemetry.measure import table

IMPORT = """
import time
import lightning.pytorch
start = time.perf_counter()
import liquid_telemetry
liquid_telemetry.Telemetry
print(time.perf_counter() - start)
"""
SETUP = """
import contextlib, io, tempfile, time, warnings
warnings.simplefilter("ignore")
from benchmarks.telemetry.loop import Stopwatch, Tiny
from lightning.pytorch import Callback, Trainer
from liquid_telemetry import Telemetry
import torch
from torch.utils.data import DataLoader, TensorDataset

class Timed(Telemetry):
    def setup(self, *arguments, **options):
        start = time.perf_counter()
        super().setup(*arguments, **options)
        self.seconds = time.perf_counter() - start

with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
    timed, stopwatch = Timed(port=0, dir=folder, console=False, otlp_endpoint=ENDPOINT), Stopwatch()
    trainer = Trainer(max_epochs=1, callbacks=[timed, stopwatch], logger=False, enable_checkpointing=False,
                      enable_model_summary=False, enable_progress_bar=False, accelerator="cpu")
    trainer.fit(Tiny(), DataLoader(TensorDataset(torch.randn(8 * BATCHES, 16)), batch_size=8))
    ended = time.perf_counter() - stopwatch.ended_at
print(WHAT)
"""


def ends(rounds: int) -> None:
    """Print medians of new interpreters."""

    def measure(code: str) -> Callable[[], float]:
        return lambda: float(subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True))

    def fit(batches: int, what: str, endpoint: str | None = None) -> Callable[[], float]:
        code = SETUP.replace("BATCHES", str(batches)).replace("WHAT", what)
        return measure(code.replace("ENDPOINT", repr(endpoint)))

    parts = {
        "`import liquid_telemetry`, after Lightning": measure(IMPORT),
        "first `setup`, with what it imports": fit(20, "timed.seconds"),
        "end of a fit of 20 batches": fit(20, "ended"),
        "end of a fit of 2000 batches": fit(2000, "ended"),
        "the same, with a dead collector": fit(2000, "ended", nobody()),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, once in parts.items():
            times[name].append(once() * 1e3)
    print(f"{rounds} new interpreters each\n")
    rows = [(name, f"{statistics.median(each):.0f}", f"{max(each):.0f}") for name, each in times.items()]
    table(("", "median, ms", "longest, ms"), rows)
