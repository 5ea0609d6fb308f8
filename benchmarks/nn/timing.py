"""Interleaved rounds and the ratios within each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from benchmarks.nn.cases import OURS, Implementation
from benchmarks.telemetry.measure import quartiles

HEAD = [f"{name}, times faster" for name in (*OURS, "LSTM", "GRU")]


def measure(made: Sequence[Implementation], run: Callable[[Implementation], None], rounds: int) -> None:
    """Run every implementation once a round in a shuffled order, after two rounds that do not count."""
    for number in range(rounds + 2):
        for one in random.sample(list(made), len(made)):
            with one.context():
                begin = time.perf_counter()
                run(one)
                taken = time.perf_counter() - begin
            if number > 1:
                one.seconds.append(taken)


def ratios(made: Sequence[Implementation], unit: float) -> list[str]:
    """Return the median time of the first, and how many times faster each other is: median, quartiles."""
    first, *others = made
    cells = [f"{quartiles(first.seconds)[1] * unit:.2f}"]
    for other in others:
        pairs = zip(first.seconds, other.seconds, strict=True)
        low, middle, high = quartiles([reference / mine for reference, mine in pairs])
        cells.append(f"{middle:.1f} ({low:.1f} … {high:.1f})")
    return cells
