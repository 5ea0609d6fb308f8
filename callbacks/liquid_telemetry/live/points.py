"""The course of a run in a bounded number of points."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from liquid_telemetry.signals import PHASES

MAX_POINTS = 1200
PHASE = "phase_"
COLUMNS = (
    "time",
    "epoch",
    "step",
    "loss",
    "val_loss",
    "accuracy",
    "val_accuracy",
    "test_accuracy",
    "learning_rate",
    "gradient_norm",
    "batches",
    "samples",
    "memory_bytes",
    "cuda_bytes",
    "cpu_percent",
    "gpu_percent",
    *(PHASE + phase for phase in PHASES),
)
"""Of a point: Unix seconds, gauges, and totals, whose differences are rates however the points are thinned."""

Point = Mapping[str, float]
_NAN = float("nan")
_SPACING = 0.9


class Points:
    """Columns of equal length in the order of time; when there are too many points, every second one goes.

    The newest point is always there; it gives way to the next one as long as it is too near to the one before it.

    Args:
        limit: Most points.
    """

    def __init__(self, limit: int = MAX_POINTS) -> None:
        self.columns = {name: array("d") for name in COLUMNS}
        self.version = 0
        """Grows when points go that have been kept before."""
        self._limit = limit
        self._spacing = _SPACING

    def __len__(self) -> int:
        return len(self.times)

    @property
    def times(self) -> array[float]:
        """Unix seconds of every point."""
        return self.columns["time"]

    @property
    def kept(self) -> int:
        """How many points stay whatever comes next."""
        return len(self) if self._newest_is_kept else len(self) - 1

    @property
    def _newest_is_kept(self) -> bool:
        return len(self) < 2 or self.times[-1] - self.times[-2] >= self._spacing

    def add(self, point: Point) -> None:
        """Add the newest point; one that is older than the newest is left out.

        Times are kept to a hundredth of a second, in which they are the same here, in a file and in an answer.
        """
        time = round(point["time"], 2)
        if len(self) and time <= self.times[-1]:
            return
        if not self._newest_is_kept:
            for column in self.columns.values():
                column.pop()
        for name, column in self.columns.items():
            column.append(time if name == "time" else point.get(name, _NAN))
        if len(self) > self._limit:
            self._thin()

    def _thin(self) -> None:
        for name, column in self.columns.items():
            self.columns[name] = column[:-1:2] + column[-1:]
        self._spacing = max(self._spacing, (self.times[-1] - self.times[0]) / (self._limit / 2))
        self.version += 1

    def point(self, index: int) -> dict[str, float]:
        """One point, without what is not known of it."""
        values = ((name, column[index]) for name, column in self.columns.items())
        return {name: value for name, value in values if not math.isnan(value)}

    def tail(self, after: float) -> dict[str, list[float | None]]:
        """The columns from the first point later than a time; None for what is not known or not finite."""
        start = next((index for index, time in enumerate(self.times) if time > after), len(self))
        return {name: [_finite(value) for value in column[start:]] for name, column in self.columns.items()}


def _finite(value: float) -> float | None:
    return float(f"{value:.12g}") if math.isfinite(value) else None


def encode(point: Point) -> str:
    """One point as a line of JSON, with its newline."""
    return json.dumps({name: _finite(value) for name, value in point.items()}, allow_nan=False) + "\n"


def decode(lines: Iterable[str], limit: int = MAX_POINTS) -> Points:
    """Read lines that :func:`encode` wrote; what is none of them is left out."""
    points = Points(limit)
    for line in lines:
        point = _read(line)
        if point is not None:
            points.add(point)
    return points


def _read(line: str) -> dict[str, float] | None:
    try:
        decoded: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, dict):
        return None
    point = {name: float(value) for name, value in decoded.items() if type(value) in (int, float)}
    return point if "time" in point and math.isfinite(point["time"]) else None
