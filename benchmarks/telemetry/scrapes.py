"""What scraping costs the loop: the exporter is another process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.telemetry.loop import Context, Variant, run_once
from benchmarks.telemetry.measure import interleave, table
from benchmarks.telemetry.variants import ours
from liquid_telemetry import Telemetry
from liquid_telemetry.spool import spool_dir

SCRAPER = """
import json, pathlib, sys, time, urllib.request
address, pause, due = pathlib.Path(sys.argv[1]) / "exporter.json", 1 / float(sys.argv[2]), time.monotonic()
while True:
    try:
        url = json.loads(address.read_text())["url"]
        urllib.request.urlopen(f"{url}/metrics", timeout=5).read()
    except (OSError, ValueError, KeyError):
        pass
    due = max(due + pause, time.monotonic())
    time.sleep(max(0.0, due - time.monotonic()))
"""


def scraped(times_a_second: float) -> Context:
    """A context in which another process scrapes the exporter."""

    @contextlib.contextmanager
    def scraping() -> Iterator[None]:
        process = subprocess.Popen([sys.executable, "-c", SCRAPER, str(spool_dir()), str(times_a_second)])
        try:
            yield
        finally:
            process.kill()
            process.wait()

    return scraping


def scrapes(folder: Path, count: int, rounds: int) -> None:
    """Print the distribution of the time of a batch, by scrapes a second."""
    watched: Callable[..., Variant] = lambda name, **more: Variant(name, ours(Telemetry, folder), **more)  # noqa: E731
    chosen = [
        Variant("bare loop"),
        watched("Telemetry, no scrape"),
        watched("Telemetry, 1 scrape a second", context=scraped(1)),
        watched("Telemetry, 10 scrapes a second", context=scraped(10)),
    ]
    interleave(chosen, rounds, lambda variant: run_once(variant, count, each=True).batches)
    rows = []
    for variant in chosen:
        times = np.concatenate([np.array(each) for each in variant.results]) * 1e6
        figures = [*np.percentile(times, [50, 99, 99.9]), times.max()]
        rows.append((variant.name, *(f"{figure:.0f}" for figure in figures)))
    print(f"{rounds} rounds of {count} batches, µs a batch\n")
    table(("", "median", "99 %", "99.9 %", "longest"), rows)
