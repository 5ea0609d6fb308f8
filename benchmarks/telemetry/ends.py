"""Import, setup, batches and the end of fit, in new interpreters: without a collector, and with three kinds of it."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.telemetry.collectors import collector, nobody
from benchmarks.telemetry.measure import added, table

Took = dict[str, float]


def ends(count: int, rounds: int) -> None:
    """Print what import, setup and the end of fit take without a collector."""
    fits = {
        "bare Trainer": _fit(count, None),
        f"Telemetry, {count} batches": _fit(count, {}),
        "Telemetry, 20 batches": _fit(20, {}),
    }
    took = _interleave(fits, rounds)
    ours = [each for name, many in took.items() if name.startswith("Telemetry") for each in many]
    print(f"{rounds} rounds of new interpreters\n")
    rows = [
        _milliseconds("`import liquid_telemetry`, after Lightning", [each["import"] for each in ours]),
        _milliseconds("first `setup`, with what it imports", [each["setup"] for each in ours]),
        *(
            _milliseconds(f"end of fit: {name}", [each["end"] for each in many])
            for name, many in took.items()
        ),
    ]
    table(("", "median, ms", "longest, ms"), rows)


def collectors(count: int, rounds: int) -> None:
    """Print what a batch and the end of fit cost with each kind of collector."""
    with collector(0) as fast, collector(2) as slow:
        took = _interleave(
            {
                "bare loop": _fit(count, None),
                "no collector": _fit(count, {}),
                "up": _fit(count, {"otlp_endpoint": fast}),
                "2 s to answer": _fit(count, {"otlp_endpoint": slow}),
                "dead": _fit(count, {"otlp_endpoint": nobody()}),
            },
            rounds,
        )
    bare = took["bare loop"]
    rows = []
    for name, many in took.items():
        costs = [
            added([each[clock] for each in many], [each[clock] for each in bare]) if many is not bare else ""
            for clock in ("batch", "processor")
        ]
        rows.append((*_milliseconds(name, [each["end"] for each in many]), *costs))
    print(f"{rounds} new interpreters each, {count} batches; the first third does not count for a batch\n")
    head = (
        "end of fit, median, ms",
        "longest, ms",
        "added to the median batch, µs",
        "to its processor time, µs",
    )
    table(("collector", *head), rows)


def _fit(batches: int, telemetry: dict[str, Any] | None) -> Callable[[], Took]:
    options = json.dumps({"batches": batches, "telemetry": telemetry})
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.telemetry.one_fit", options]

    def once() -> Took:
        took: Took = json.loads(subprocess.check_output(command, text=True))
        return took

    return once


def _interleave(fits: dict[str, Callable[[], Took]], rounds: int) -> dict[str, list[Took]]:
    took: dict[str, list[Took]] = {name: [] for name in fits}
    for _ in range(rounds):
        for name in random.sample(list(fits), len(fits)):
            took[name].append(fits[name]())
    return took


def _milliseconds(name: str, seconds: list[float]) -> tuple[str, str, str]:
    return name, f"{statistics.median(seconds) * 1e3:.0f}", f"{max(seconds) * 1e3:.0f}"
