"""A stage on which everything happens that a panel shows, and what Prometheus saw of it."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny
from dashboards import Asked, queries
from failures.stage import JOB, Stage
from servers import Prometheus

from liquid_telemetry.spool import exporter_address

OBSERVED = Path(__file__).parent / "observed.py"
AFTERWARDS = Path(__file__).parent / "afterwards.py"
NVML = """
NVML_TEMPERATURE_GPU = 0
class NVMLError(Exception): pass
class Rates: gpu = 87
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUtilizationRates(gpu): return Rates
def nvmlDeviceGetTemperature(gpu, sensor): return 61
def nvmlDeviceGetPowerUsage(gpu): return 312500
"""
"""In place of NVIDIA's library: the exporter reads it as it reads the real one."""

Series = list[tuple[dict[str, str], list[tuple[float, float]]]]


@dataclass
class Seen:
    """What Prometheus saw between two moments, in unix seconds, and what the runs wrote."""

    prometheus: Prometheus
    start: float
    end: float
    observed: tiny.Written
    others: list[tiny.Written]
    calls: Counter[str] = field(default_factory=Counter)

    def ask(self, asked: Asked) -> Series:
        """What a panel is given, its windows as wide as the test."""
        one = {"model": "Observed"} if asked.dashboard == "training-run" else {}
        expr = asked.filled(__range=f"{math.ceil(self.end - self.start)}s", **one)
        return self.at_end(expr) if asked.target.get("instant") else self.over_time(expr)

    def at_end(self, expr: str) -> Series:
        answer = self.prometheus.get("/api/v1/query", query=expr, time=self.end)
        return [(one["metric"], [_sample(one["value"])]) for one in answer["result"]]

    def over_time(self, expr: str) -> Series:
        window = {"start": self.start, "end": self.end, "step": 0.5}
        answer = self.prometheus.get("/api/v1/query_range", query=expr, **window)
        return [(one["metric"], [_sample(value) for value in one["values"]]) for one in answer["result"]]

    def panel(self, dashboard: str, title: str, ref: str = "A") -> Series:
        """What the panel of that title is given for one of its queries."""
        (asked,) = (asked for asked in queries() if str(asked) == f"{dashboard}/{title}/{ref}")
        return self.ask(asked)

    def values(self, dashboard: str, title: str, ref: str = "A", **labels: str) -> list[float]:
        """The values over time of a panel's only series, or of the one with these labels."""
        ((_, samples),) = (
            one for one in self.panel(dashboard, title, ref) if labels.items() <= one[0].items()
        )
        return [value for _, value in samples]

    def by(self, label: str, dashboard: str, title: str, ref: str = "A") -> dict[str, float]:
        """The last value of each series of a panel, by one of its labels."""
        return {labels[label]: samples[-1][1] for labels, samples in self.panel(dashboard, title, ref)}


def _sample(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def _call(spool: Path, calls: Counter[str]) -> None:
    """Be a visitor: of the page and of an address that is not there."""
    address = exporter_address(spool)
    assert address is not None
    for path in ("/", "/nothing-here"):
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(address.url + path, timeout=10):
            pass
        calls[path] += 1


def _visit(made: Stage, calls: Counter[str], process: subprocess.Popen[bytes]) -> None:
    """Call again and again until a process has ended."""
    deadline = time.monotonic() + 200
    while process.poll() is None:
        assert time.monotonic() < deadline
        _call(made.spool, calls)
        time.sleep(0.5)


def play(made: Stage) -> tuple[float, Counter[str]]:
    """One run in which everything happens; beside it two of another model, of which one fails, one is stopped."""
    start, calls = time.time(), Counter[str]()
    observed = made.start([sys.executable, str(OBSERVED)], made.home / "observed")
    afterwards = made.start([sys.executable, str(AFTERWARDS)], made.home / "afterwards")
    stopped = made.start([sys.executable, str(JOB), "Broken", "--epochs", "500"], made.home / "stopped")
    stopped.trains()
    failing = ["Broken", "--at", "training_step", "--do", "raise"]
    _visit(made, calls, made.start([sys.executable, str(JOB), *failing], made.home / "failing").process)
    stopped.signal(signal.SIGTERM)
    _visit(made, calls, observed.process)
    assert observed.process.returncode == 0, (observed.folder / "output").read_text()
    _visit(made, calls, afterwards.process)
    assert afterwards.process.returncode == 0, (afterwards.folder / "output").read_text()
    return start, calls


def is_over(made: Stage, calls: int) -> bool:
    """Whether all is counted, no run is on show any more, and somebody has been told."""
    answered = made.prometheus.query('sum(liquid_nn_api_calls_total{endpoint=~"/|other"})')
    counted = {**made.totals("Observed"), **made.totals("Broken")}
    ended = {"completed": 1, "failed/exception": 1, "interrupted/terminated": 1}
    told = made.prometheus.query("sum(alertmanager_notifications_total) > 0")
    return (
        ended.items() <= counted.items()
        and not made.prometheus.query("liquid_nn_training_info")
        and not made.prometheus.query("liquid_nn_performance_regression")
        and sum(answered.values()) >= calls
        and bool(told)
        and len(made.prometheus.query('ALERTS{alertstate="firing"}')) >= 3
    )
