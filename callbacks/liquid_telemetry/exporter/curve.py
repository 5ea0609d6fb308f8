"""The loss of a run over its epochs, kept in a bounded number of points."""

from __future__ import annotations

import math

from liquid_telemetry.exporter.snapshots import Snapshot

MAX_POINTS = 400


class Curve:
    """Points of (global step, loss); when there are too many, every second one goes."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self._spacing = 0.0

    def add(self, snapshot: Snapshot) -> None:
        """Take the latest loss, unless it is too near to the point before."""
        step, loss = snapshot.value("training_global_step"), snapshot.value("training_loss")
        if step is None or loss is None or not math.isfinite(loss):
            return
        if self.points and step < self.points[-1][0]:
            self.points.clear()
        if self.points and step - self.points[-1][0] <= self._spacing:
            return
        self.points.append((step, loss))
        if len(self.points) > MAX_POINTS:
            self.points = self.points[::2]
            self._spacing = (self.points[-1][0] - self.points[0][0]) / MAX_POINTS
