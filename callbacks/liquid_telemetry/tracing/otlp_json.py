"""OTLP in JSON, one ``TracesData`` a line: the OpenTelemetry file exporter's format.

Source: opentelemetry-proto ``trace.proto`` and the OTLP specification, "JSON Protobuf Encoding" (hexadecimal ids,
64-bit integers as strings). Standard library only, so that the exporter process can close a dead run's trace.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Value = str | bool | int | float
Attributes = Mapping[str, Value]

OK, ERROR = 1, 2


@dataclass(frozen=True)
class SpanEvent:
    """Something that happened within a span."""

    name: str
    time_ns: int
    attributes: Attributes


@dataclass(frozen=True)
class SpanData:
    """A finished span; ids are lower-case hex, times Unix nanoseconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start_ns: int
    end_ns: int
    attributes: Attributes = field(default_factory=dict)
    status: int = 0
    message: str = ""
    links: tuple[tuple[str, str], ...] = ()
    events: tuple[SpanEvent, ...] = ()


def encode_value(value: Value) -> dict[str, Any]:
    """An ``AnyValue``."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else _NOT_FINITE[str(value)]}
    return {"stringValue": value}


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def encode_attributes(attributes: Attributes) -> list[dict[str, Any]]:
    """A list of ``KeyValue``."""
    return [{"key": key, "value": encode_value(value)} for key, value in attributes.items()]


def encode_span(span: SpanData) -> dict[str, Any]:
    """A ``Span``."""
    encoded: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": 1,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(max(span.start_ns, span.end_ns)),
        "attributes": encode_attributes(span.attributes),
        "status": {},
        "flags": 1,
    }
    if span.parent_id is not None:
        encoded["parentSpanId"] = span.parent_id
    if span.status:
        encoded["status"] = {"code": span.status, **({"message": span.message} if span.message else {})}
    if span.links:
        encoded["links"] = [{"traceId": trace, "spanId": linked, "flags": 1} for trace, linked in span.links]
    if span.events:
        encoded["events"] = [
            {
                "name": event.name,
                "timeUnixNano": str(event.time_ns),
                "attributes": encode_attributes(event.attributes),
            }
            for event in span.events
        ]
    return encoded


class LineEncoder:
    """Encodes spans as lines under one resource and one scope.

    Args:
        resource: Resource attributes.
        scope: Name of the tracer.
        version: Its version.
    """

    def __init__(self, resource: Attributes, scope: str, version: str) -> None:
        attributes = json.dumps(encode_attributes(resource), separators=(",", ":"))
        name = json.dumps({"name": scope, "version": version}, separators=(",", ":"))
        scope_spans = f'"scopeSpans":[{{"scope":{name},"spans":['
        self._head = f'{{"resourceSpans":[{{"resource":{{"attributes":{attributes}}},{scope_spans}'

    def wrap(self, spans: Iterable[str]) -> str:
        """One ``TracesData`` of encoded spans, with a newline behind it."""
        return f"{self._head}{','.join(spans)}]}}]}}]}}\n"

    def line(self, spans: Iterable[SpanData]) -> str:
        """One ``TracesData`` with a newline behind it."""
        return self.wrap(json.dumps(encode_span(span), separators=(",", ":")) for span in spans)
