"""Which part of a run's telemetry has had errors, and when."""

from __future__ import annotations

from collections.abc import Iterable

from liquid_telemetry.exporter.snapshots import Snapshot

COMPONENTS = ("metrics", "tracing", "logging")
_COMPONENT = {"tracing": "tracing", "logs": "logging", "logging": "logging"}  # others belong to the metrics


class ComponentErrors:
    """When ``telemetry_errors_total`` last rose, by component; times are monotonic seconds."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COMPONENTS, 0.0)
        self._risen: dict[str, float] = {}

    def note(self, snapshots: Iterable[Snapshot], now: float) -> None:
        """Compare with what was counted before."""
        counts = dict.fromkeys(COMPONENTS, 0.0)
        for snapshot in snapshots:
            for sample in snapshot.samples("telemetry_errors_total"):
                counts[_COMPONENT.get(sample.labels.get("signal", ""), "metrics")] += sample.value
        for component in COMPONENTS:
            if counts[component] > self._counts[component]:
                self._risen[component] = now
        self._counts = counts

    def recent(self, component: str, since: float) -> bool:
        """Whether errors have been counted after ``since``."""
        return self._risen.get(component, float("-inf")) > since
