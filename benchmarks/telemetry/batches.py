"""What each way of observing adds to a batch."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.telemetry.loop import run_once
from benchmarks.telemetry.measure import added, interleave, table
from benchmarks.telemetry.variants import variants


def batches(folder: Path, count: int, rounds: int, only: Sequence[str]) -> None:
    """Print the added time of every variant."""
    bare, *others = variants(folder)
    chosen = [bare, *(v for v in others if not only or any(part in v.name for part in only))]
    interleave(chosen, rounds, lambda variant: run_once(variant, count))
    floor = statistics.median(timing.batch for timing in bare.results)
    print(f"{rounds} rounds of {count} batches; bare loop {floor * 1e6:.0f} µs a batch\n")
    rows = []
    for variant in chosen[1:]:
        wall = [[timing.batch for timing in each.results] for each in (variant, bare)]
        processor = [[timing.processor for timing in each.results] for each in (variant, bare)]
        share = statistics.median(map(operator.sub, *wall)) / floor
        rows.append((variant.name, added(*wall), f"{share:+.1%}", added(*processor)))
    table(("", "added µs a batch (quartiles)", "of the bare loop", "of processor time, µs (quartiles)"), rows)
