"""One exposition from the snapshots of many runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from liquid_telemetry.exporter.host import HostSample
from liquid_telemetry.exporter.ledger import Receipt
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.sums import Series
from liquid_telemetry.signals import JOB_STATES, METRICS, PREFIX

_CUMULATIVE = ("counter", "histogram")
_NOT_ADDITIVE = ("_percent", "_celsius", "_watts")  # of a device that several runs may report


def _family_name(full_name: str, kind: str) -> str:
    return full_name.removesuffix("_total") if kind == "counter" else full_name


_OWN = {
    _family_name(metric.full_name, metric.type) for metric in METRICS.values() if metric.source == "exporter"
}
_SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
_CATALOGUE = {
    metric.full_name + suffix: metric for metric in METRICS.values() for suffix in _SUFFIXES[metric.type]
}
_ORDER = {_family_name(metric.full_name, metric.type): index for index, metric in enumerate(METRICS.values())}


class Exposition:
    """Families of samples, each series at most once: Prometheus refuses a whole scrape for one double."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}
        self._seen: set[Series] = set()

    def collect(self) -> list[Metric]:
        """Return the families in the catalogue's order."""
        return sorted(self._families.values(), key=lambda family: _ORDER.get(family.name, len(_ORDER)))

    def add(self, family: Metric, sample: Sample) -> None:
        """Add a sample, unless its series is there or its family has another type."""
        place = self._families.get(family.name)
        if place is None:
            place = self._families[family.name] = Metric(family.name, family.documentation, family.type)
        series = series_of(sample)
        if place.type == family.type and series not in self._seen:
            self._seen.add(series)
            place.samples.append(sample)

    def put(self, name: str, value: float, **labels: str) -> None:
        """Add a sample of the catalogue, by its name without the common prefix."""
        self.put_series((PREFIX + name, tuple(labels.items())), value)

    def put_series(self, series: Series, value: float) -> None:
        """Add a sample of the catalogue; one that is not in it is left out."""
        metric = _CATALOGUE.get(series[0])
        if metric is not None:
            family = Metric(_family_name(metric.full_name, metric.type), metric.help, metric.type)
            self.add(family, Sample(series[0], dict(series[1]), value))


def series_of(sample: Sample) -> Series:
    """Return a sample's identity."""
    return sample.name, tuple(sorted(sample.labels.items()))


def cumulative(families: Iterable[Metric]) -> Iterator[tuple[Series, float]]:
    """Yield the catalogue's counters and histograms without ``model_name`` in a snapshot."""
    for family, sample in _samples(families):
        if "model_name" not in sample.labels and family.type in _CUMULATIVE and sample.name in _CATALOGUE:
            yield series_of(sample), sample.value


def add_host(exposition: Exposition, sample: HostSample) -> None:
    """Add what is measured once for all runs."""
    for component in ("process", "workers"):
        exposition.put("memory_usage_bytes", getattr(sample, component), component=component)
    exposition.put("memory_usage_bytes", sample.memory_used, component="system")
    for core, percent in enumerate(sample.cpu):
        exposition.put("cpu_utilization_percent", percent, core=str(core))
    for (name, device), value in sample.gpus.items():
        exposition.put(name, value, device=device)


def add_totals(exposition: Exposition, totals: Receipt) -> None:
    """Add the totals of jobs."""
    for (model, (metric, reason)), value in totals.items():
        labels = {"reason": reason} if reason else {}
        exposition.put(f"training_jobs_{metric}_total", value, model_name=model, **labels)


def add_runs(exposition: Exposition, runs: Iterable[Run]) -> None:
    """Add the series of runs: state and activity of jobs, then what the snapshots say."""
    shown = [run for run in runs if run.shown]
    for run in shown:
        if run.job:
            _add_state(exposition, run)
    for run in shown:
        slot = slot_of(run)
        for family, sample in _samples(run.lead.snapshot.families):
            if "model_name" in sample.labels:
                exposition.add(family, sample._replace(labels={**sample.labels, **slot}))


def add_gauges(exposition: Exposition, runs: Iterable[Run]) -> None:
    """Add the gauges without ``model_name``: sums over the live runs, or the greatest value of a device."""
    found: dict[Series, tuple[Metric, float]] = {}
    for run in runs:
        for family, sample in _gauges(run):
            series = series_of(sample)
            _, before = found.get(series, (family, 0.0))
            additive = not family.name.endswith(_NOT_ADDITIVE)
            found[series] = family, before + sample.value if additive else max(before, sample.value)
    for (name, labels), (family, value) in found.items():
        exposition.add(family, Sample(name, dict(labels), value))


def _gauges(run: Run) -> Iterator[tuple[Metric, Sample]]:
    if not run.live:
        return
    for rank in run.ranks.values():
        for family, sample in _samples(rank.snapshot.families):
            if family.type not in _CUMULATIVE and "model_name" not in sample.labels:
                yield family, sample


def _samples(families: Iterable[Metric]) -> Iterator[tuple[Metric, Sample]]:
    """Yield what a run may say: not what the exporter says itself, and no creation times."""
    for family in families:
        if family.name not in _OWN:
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    yield family, sample


def _add_state(exposition: Exposition, run: Run) -> None:
    labels = {"model_name": run.label, **slot_of(run)}
    exposition.put("training_active", float((run.live or run.undecided) and run.outcome is None), **labels)
    for state in JOB_STATES:
        exposition.put("training_job_state", float(state == run.state), state=state, **labels)


def slot_of(run: Run) -> dict[str, str]:
    """Return the label that tells a run from others of its model at the same time; the first has none."""
    return {"slot": str(run.slot)} if run.slot else {}
