"""Whether a batch late in a run costs our own code more than an early one."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.telemetry.measure import added, table
from benchmarks.telemetry.own import BLOCK, measure_own
from benchmarks.telemetry.variants import ours
from liquid_telemetry import Telemetry

AT_ONCE = 3


def growth(folder: Path, batches: int, rounds: int) -> None:
    """Print own code a batch after some batches of one run, and what the last ones cost beyond the first ones."""
    blocks = max(2 * AT_ONCE, batches // BLOCK)
    places = [1, *(at for at in (blocks // 20, blocks // 2) if at > 1), blocks - AT_ONCE]
    rows = []
    for name, spans in (("a span for every batch", True), ("the trace's budget spent", False)):
        runs = [measure_own(ours(Telemetry, folder)()[0], spans, blocks) for _ in range(rounds)]
        costs = [[statistics.median(run[at : at + AT_ONCE]) for run in runs] for at in places]
        figures = [f"{statistics.median(each) * 1e6:.1f}" for each in costs]
        rows.append((f"Telemetry, {name}", *figures, added(costs[-1], costs[0])))
    print(
        f"{rounds} runs; median of {AT_ONCE} blocks of {BLOCK} batches each, µs of processor time a batch\n"
    )
    head = [f"from batch {at * BLOCK:,}" for at in places]
    table(("", *head, "last less first (quartiles)"), rows)
