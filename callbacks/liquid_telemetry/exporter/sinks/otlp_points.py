"""Families of samples as OTLP metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

from liquid_telemetry.exporter.sinks import protobuf as pb
from liquid_telemetry.exporter.sinks.shipment import Shipment
from liquid_telemetry.signals import PREFIX

_CUMULATIVE, _NO_VALUE = 2, 1
_UNITS = {"_seconds": "s", "_bytes": "By"}
_KINDS = {"gauge": 5, "counter": 7, "histogram": 9}
_ATTRIBUTES = {"gauge": 7, "counter": 7, "histogram": 9}
_FLAGS = {"gauge": 8, "counter": 8, "histogram": 10}
_TOTALS = f"{PREFIX}training_jobs_"

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, str, Labels]
"""Name, kind and labels of what is one series here: a histogram is one, not one for each bucket."""


@dataclass(frozen=True)
class Points:
    """The series of the delivery before, which end when they are not in the next one.

    Args:
        series: Those series.
    """

    series: frozenset[Series] = frozenset()

    def encode(self, shipment: Shipment) -> tuple[bytes, Points]:
        """Return the metrics, as fields of a ``ScopeMetrics``, and what the next delivery is to follow."""
        encoded: list[bytes] = []
        seen: set[Series] = set()
        for family in shipment.families:
            name, kind = _name(family), family.type if family.type in _KINDS else "gauge"
            points = dict(_points(family, kind, shipment))
            seen |= {(name, kind, labels) for labels in points}
            if points:
                encoded.append(_metric(name, kind, family.documentation, points.values()))
        for name, kind, labels in sorted(self.series - seen):
            encoded.append(_metric(name, kind, "", [_end(kind, labels, shipment.time)]))
        return b"".join(encoded), Points(frozenset(seen))


def attributes(number: int, labels: Mapping[str, str]) -> bytes:
    """Encode repeated ``KeyValue`` of strings."""
    return b"".join(
        pb.message(number, pb.text(1, key), pb.message(2, pb.message(1, value.encode())))
        for key, value in labels.items()
    )


def _metric(name: str, kind: str, description: str, points: Iterable[bytes]) -> bytes:
    data = b"".join(pb.message(1, point) for point in points)
    if kind != "gauge":
        data += pb.number(2, _CUMULATIVE)
    if kind == "counter":
        data += pb.number(3, 1)
    unit = next((unit for suffix, unit in _UNITS.items() if name.removesuffix("_total").endswith(suffix)), "")
    return pb.message(
        2, pb.text(1, name), pb.text(2, description), pb.text(3, unit), pb.message(_KINDS[kind], data)
    )


def _name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _points(family: Metric, kind: str, shipment: Shipment) -> Iterable[tuple[Labels, bytes]]:
    if kind == "histogram":
        yield from _histograms(family, shipment)
        return
    for sample in family.samples:
        fields = [pb.double(4, sample.value)]
        if kind == "counter":
            fields.append(_start(sample, shipment))
        yield _labels(sample), _point(kind, sample.labels, shipment.time, *fields)


@dataclass
class _Histogram:
    sample: Sample
    buckets: dict[float, Sample] = field(default_factory=dict)
    sum: float = 0.0


def _histograms(family: Metric, shipment: Shipment) -> Iterable[tuple[Labels, bytes]]:
    found: dict[Labels, _Histogram] = {}
    for sample in family.samples:
        labels = _labels(sample)
        histogram = found.setdefault(labels, _Histogram(sample))
        if sample.name.endswith("_bucket"):
            histogram.buckets[float(sample.labels["le"])] = sample
        elif sample.name.endswith("_sum"):
            histogram.sum = sample.value
    for labels, histogram in found.items():
        bounds = sorted(histogram.buckets)
        if bounds and bounds[-1] == inf:
            yield labels, _histogram(dict(labels), histogram, bounds, shipment)


def _histogram(
    labels: Mapping[str, str], histogram: _Histogram, bounds: list[float], shipment: Shipment
) -> bytes:
    """Prometheus counts what is below each bound, OTLP what is between two."""
    below = [int(histogram.buckets[bound].value) for bound in bounds]
    counts = [max(count - before, 0) for before, count in zip([0, *below[:-1]], below, strict=True)]
    exemplars = (_exemplar(sample.exemplar) for sample in histogram.buckets.values() if sample.exemplar)
    return _point(
        "histogram",
        labels,
        shipment.time,
        _start(histogram.sample, shipment),
        pb.fixed64(4, sum(counts)),
        pb.double(5, histogram.sum),
        pb.packed(6, counts, "Q"),
        pb.packed(7, bounds[:-1], "d"),
        *exemplars,
    )


def _exemplar(exemplar: Exemplar) -> bytes:
    trace, span = exemplar.labels.get("trace_id", ""), exemplar.labels.get("span_id", "")
    try:
        ids = pb.message(4, bytes.fromhex(span)) + pb.message(5, bytes.fromhex(trace))
    except ValueError:
        ids = attributes(7, exemplar.labels)
    time = float(exemplar.timestamp or 0.0)
    return pb.message(8, pb.fixed64(2, _nanoseconds(time)), pb.double(3, exemplar.value), ids)


def _point(kind: str, labels: Mapping[str, str], time: float, *fields: bytes) -> bytes:
    return b"".join([attributes(_ATTRIBUTES[kind], labels), pb.fixed64(3, _nanoseconds(time)), *fields])


def _end(kind: str, labels: Labels, time: float) -> bytes:
    return _point(kind, dict(labels), time, pb.number(_FLAGS[kind], _NO_VALUE))


def _start(sample: Sample, shipment: Shipment) -> bytes:
    """When the series began to count; never after the point, whatever the wall clock did."""
    place = sample.labels.get("model_name", ""), sample.labels.get("slot", "")
    begin = shipment.born if sample.name.startswith(_TOTALS) else shipment.starts.get(place, shipment.born)
    return pb.fixed64(2, _nanoseconds(min(begin, shipment.time)))


def _labels(sample: Sample) -> Labels:
    return tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))


def _nanoseconds(seconds: float) -> int:
    return max(int(seconds * 1e9), 0)
