"""Interleaved rounds, paired differences, tables."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.telemetry.loop import Variant


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for runs, with a spool; an exporter that still writes there leaves once it is gone."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.environ["LIQUID_TELEMETRY_SPOOL"] = f"{name}/spool"
        yield Path(name)


def machine() -> str:
    """What the figures were measured on."""
    python = platform.python_version()
    torchs = f"torch {torch.__version__}, lightning {version('lightning')}"
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {python}, {torchs}"


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
