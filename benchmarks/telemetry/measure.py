"""Interleaved rounds, paired differences, tables."""

from __future__ import annotations

import os
import platform
import random
import statistics
from collections.abc import Callable, Sequence

import torch

from benchmarks.telemetry.loop import Variant


def machine() -> str:
    """What the figures were measured on."""
    python = platform.python_version()
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {python}, torch {torch.__version__}"


def interleave(chosen: Sequence[Variant], rounds: int, once: Callable[[Variant], object]) -> None:
    """Run every variant once a round in a shuffled order, after a round that does not count."""
    for number in range(rounds + 1):
        for variant in random.sample(list(chosen), len(chosen)):
            result = once(variant)
            if number:
                variant.results.append(result)


def added(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """Median of paired differences with quartiles, in microseconds."""
    differences = [(one - other) * 1e6 for one, other in zip(mine, theirs, strict=True)]
    lower, median, upper = quartiles(differences)
    return f"{median:+.1f} ({lower:+.1f} … {upper:+.1f})"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, median, upper = statistics.quantiles(values, n=4)
    return lower, median, upper


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table; all columns but the first are numbers."""
    print(f"| {' | '.join(head)} |")
    print("|---|" + "---:|" * (len(head) - 1))
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)
