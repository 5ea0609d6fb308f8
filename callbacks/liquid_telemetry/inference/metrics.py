"""What requests leave in the metrics, and how those come before Prometheus."""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from liquid_telemetry.metrics.embed import embed_besides
from liquid_telemetry.metrics.publish import Publisher
from liquid_telemetry.metrics.store import Store
from liquid_telemetry.observe.guard import Faults

SIGNALS = ("metrics", "tracing", "logging")


class Counts:
    """The metrics of one process that infers; any thread may count.

    Args:
        model_name: Name of the model.
        faults: Are shown, too.
        registry: Show the metrics there.
    """

    def __init__(self, model_name: str, faults: Faults, registry: CollectorRegistry | None = None) -> None:
        self._store = Store(model_name)
        self._faults = faults
        self._lock = threading.Lock()
        self._store.histogram("inference_duration_seconds")
        for signal in SIGNALS:
            self._store.add("telemetry_errors_total", 0, signal, "")
            self._store.add("telemetry_dropped_total", 0, signal, "")
        if registry is not None:
            embed_besides(self._store, registry)

    def announce(self, model_type: str, device: str) -> None:
        """Let a counter exist before its first increase, or Prometheus cannot see it."""
        self.add("inference_requests_total", 0, model_type, device)

    def request(
        self, seconds: float, model_type: str, device: str, exemplar: dict[str, str] | None = None
    ) -> None:
        """Count a request."""
        with self._lock:
            histogram = self._store.histogram("inference_duration_seconds")
            histogram.observe(seconds)
            if exemplar is not None:
                histogram.attach(seconds, exemplar)
            self._store.add("inference_requests_total", 1, model_type, device)

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Increase a counter of the catalogue."""
        with self._lock:
            self._store.add(name, amount, *labels)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge of the catalogue."""
        with self._lock:
            self._store.set(name, value, *labels)

    def publish(self, publisher: Publisher) -> None:
        """Hand the metrics to the exporter process."""
        self.tell_faults()
        with self._lock:
            publisher.publish(self._store, force=True)

    def text(self) -> bytes:
        """The metrics as OpenMetrics text."""
        self.tell_faults()
        with self._lock:
            return bytes(generate_latest(self._store))  # type: ignore[no-untyped-call]

    def tell_faults(self) -> None:
        """Show what went wrong so far."""
        for kind, counts in (("errors", self._faults.errors), ("dropped", self._faults.dropped)):
            for (signal, reason), count in list(counts.items()):
                self.set(f"telemetry_{kind}_total", count, signal, reason)
