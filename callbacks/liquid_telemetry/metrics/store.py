"""Values of the catalogue's metrics for one run, as plain numbers."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from liquid_telemetry.signals import METRICS

Labels = tuple[str, ...]


class Histogram:
    """Counts per bucket; the last exemplar of each."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: NDArray[np.float64]) -> None:
        """Count many values."""
        buckets = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts))
        self.counts = [count + more for count, more in zip(self.counts, buckets.tolist(), strict=True)]
        self.sum += float(values.sum())

    def absorb(self, other: Histogram) -> None:
        """Add what another histogram of the same bounds has counted."""
        self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def attach(self, value: float, labels: dict[str, str]) -> None:
        """Make a counted value the exemplar of its bucket."""
        self.exemplars[bisect_left(self.bounds, value)] = Exemplar(labels, value, time.time())

    def buckets(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Cumulative counts with upper bounds, as prometheus_client wants them."""
        names = [*(repr(float(bound)) for bound in self.bounds), "+Inf"]
        rows: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        total = 0
        for position, (name, count) in enumerate(zip(names, self.counts, strict=True)):
            total += count
            exemplar = self.exemplars.get(position)
            rows.append((name, float(total)) if exemplar is None else (name, float(total), exemplar))
        return rows


class Store:
    """A collector over plain numbers: no lock is shared between a scrape and the training thread.

    A scrape in between two writes sees one of them; each sample by itself is whole.

    Args:
        model_name: Value of the label that most families carry.
    """

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        self._values: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that is counted elsewhere."""
        self._values.setdefault(name, {})[labels] = float(value)

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Increase a counter; by 0 to make it appear."""
        children = self._values.setdefault(name, {})
        children[labels] = children.get(labels, 0.0) + amount

    def knows(self, name: str) -> bool:
        """Whether a family that is no histogram has a sample."""
        return name in self._values

    def clear(self, name: str) -> None:
        """End all series of a family."""
        self._values.pop(name, None)

    def absorb(self, other: Store) -> None:
        """Add what another store has counted, without what carries its model's name."""
        for name, children in other._values.items():
            if METRICS[name].type == "counter" and not METRICS[name].model_labelled:
                for labels, value in children.items():
                    self.add(name, value, *labels)
        for name, histograms in other._histograms.items():
            if not METRICS[name].model_labelled:
                for labels, histogram in histograms.items():
                    self.histogram(name, *labels).absorb(histogram)

    def part(self, names: Iterable[str]) -> Store | None:
        """A store of some families alone, which are no histograms; None when none of them has a sample."""
        chosen = Store(self.model_name)
        chosen._values = {name: self._values[name] for name in names if name in self._values}
        return chosen if chosen._values else None

    def histogram(self, name: str, *labels: str) -> Histogram:
        """A histogram, made when it is new."""
        children = self._histograms.setdefault(name, {})
        if labels not in children:
            children[labels] = Histogram(METRICS[name].buckets)
        return children[labels]

    def collect(self) -> Iterable[Metric]:
        """The families as prometheus_client knows them."""
        for name, children in list(self._values.items()):
            family = self._family(name)
            for labels, value in list(children.items()):
                family.add_metric(self._label_values(name, labels), value)
            yield family
        for name, histograms in list(self._histograms.items()):
            histogram_family = self._histogram_family(name)
            for labels, histogram in list(histograms.items()):
                histogram_family.add_metric(
                    self._label_values(name, labels), histogram.buckets(), histogram.sum
                )
            yield histogram_family

    def _family(self, name: str) -> GaugeMetricFamily | CounterMetricFamily:
        metric = METRICS[name]
        kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
        return kind(metric.full_name, metric.help, labels=self._label_names(name))

    def _histogram_family(self, name: str) -> HistogramMetricFamily:
        return HistogramMetricFamily(
            METRICS[name].full_name, METRICS[name].help, labels=self._label_names(name)
        )

    def _label_names(self, name: str) -> list[str]:
        metric = METRICS[name]
        return ["model_name", *metric.labels] if metric.model_labelled else list(metric.labels)

    def _label_values(self, name: str, labels: Labels) -> list[str]:
        return [self.model_name, *labels] if METRICS[name].model_labelled else list(labels)
