"""What each way of observing adds to a batch."""

from __future__ import annotations

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
    interleave(chosen, rounds, lambda variant: run_once(variant, count).batch)
    floor = statistics.median(bare.results)
    print(f"{rounds} rounds of {count} batches; bare loop {floor * 1e6:.0f} µs a batch\n")
    rows = []
    for variant in chosen[1:]:
        differences = [mine - theirs for mine, theirs in zip(variant.results, bare.results, strict=True)]
        share = statistics.median(differences) / floor
        rows.append((variant.name, added(variant.results, bare.results), f"{share:+.1%}"))
    table(("", "added µs a batch (quartiles)", "of the bare loop"), rows)
