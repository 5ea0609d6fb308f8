"""Interleaved rounds and the ratios within each."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence

from benchmarks.nn.cases import OURS, Implementation
from benchmarks.telemetry.measure import quartiles

HEAD = [f"{name}, times faster" for name in (*OURS, "LSTM", "GRU")]


BLOCK = 0.02
"""Seconds that a measurement lasts at least."""


def measure(made: Sequence[Implementation], run: Callable[[Implementation], None], rounds: int) -> None:
    """Time a block of calls of every implementation once a round, in a shuffled order, after two warm calls."""
    calls = [_calls(one, run) for one in made]
    for _ in range(rounds):
        for one, count in random.sample(list(zip(made, calls, strict=True)), len(made)):
            one.seconds.append(_block(one, run, count))


def _calls(one: Implementation, run: Callable[[Implementation], None]) -> int:
    _block(one, run, 2)
    return math.ceil(BLOCK / _block(one, run, 1))


def _block(one: Implementation, run: Callable[[Implementation], None], count: int) -> float:
    """Return the mean time of some calls in a row."""
    with one.context():
        begin = time.perf_counter()
        for _ in range(count):
            run(one)
        return (time.perf_counter() - begin) / count


def ratios(made: Sequence[Implementation], unit: float) -> list[str]:
    """Return the median time of the first, and how many times faster each other is: median, quartiles."""
    first, *others = made
    cells = [f"{quartiles(first.seconds)[1] * unit:.2f}"]
    for other in others:
        pairs = zip(first.seconds, other.seconds, strict=True)
        low, middle, high = quartiles([reference / mine for reference, mine in pairs])
        cells.append(f"{middle:.1f} ({low:.1f} … {high:.1f})")
    return cells
