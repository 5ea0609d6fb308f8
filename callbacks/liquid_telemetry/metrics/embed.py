"""Serving from a registry of the user's own, for programs that already expose metrics."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from liquid_telemetry.metrics.jobs import EmbeddedJob, totals_of
from liquid_telemetry.metrics.store import Store

_embedded: WeakKeyDictionary[CollectorRegistry, Embedded] = WeakKeyDictionary()


class Embedded(Collector):
    """All runs of this process that use one registry; a model's newest run stands for the model."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}
        self._totals: dict[str, Store] = {}
        self._others: list[Store] = []
        self._past = Store("")
        self._process = Store("")

    def show(self, store: Store) -> None:
        """Show a run, in place of an earlier one of the same model, whose share of common counters stays."""
        earlier = self._stores.get(store.model_name)
        if earlier is not None:
            self._past.absorb(earlier)
        self._stores[store.model_name] = store

    def show_besides(self, store: Store) -> None:
        """Show what is no run's, such as the requests of a server."""
        self._others.append(store)

    def job(self, store: Store) -> EmbeddedJob:
        """The job that a run is, counted with the others of its model."""
        model = store.model_name
        return EmbeddedJob(store, self._totals.setdefault(model, totals_of(model)))

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry asks at registration, and families appear as they get values."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Each family once, with the samples of all runs."""
        self._process.set("memory_usage_bytes", psutil.Process().memory_info().rss, "process")
        families: dict[str, Metric] = {}
        stores = (*list(self._stores.values()), *list(self._totals.values()), *list(self._others))
        for store in (*stores, self._past, self._process):
            for family in store.collect():
                if family.name in families:
                    families[family.name].samples = _merge(families[family.name].samples + family.samples)
                else:
                    families[family.name] = family
        return families.values()


def _merge(samples: list[Sample]) -> list[Sample]:
    """Each series once: what does not carry the model's name is summed."""
    series: dict[tuple[str, tuple[tuple[str, str], ...]], Sample] = {}
    for sample in samples:
        key = sample.name, tuple(sample.labels.items())
        before = series[key].value if key in series else 0.0
        series[key] = sample._replace(value=before + sample.value)
    return list(series.values())


def embed(store: Store, registry: CollectorRegistry, *, is_job: bool) -> EmbeddedJob | None:
    """Show a run's metrics in a registry; returns its job if it is one."""
    collector = _collector(registry)
    collector.show(store)
    return collector.job(store) if is_job else None


def embed_besides(store: Store, registry: CollectorRegistry) -> None:
    """Show metrics that are no run's."""
    _collector(registry).show_besides(store)


def _collector(registry: CollectorRegistry) -> Embedded:
    collector = _embedded.get(registry)
    if collector is None:
        collector = _embedded[registry] = Embedded()
        registry.register(collector)
    return collector
