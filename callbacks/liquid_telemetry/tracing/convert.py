"""Our encoded spans as the OpenTelemetry SDK's, for its exporters; imports the SDK when first called."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from liquid_telemetry import __version__
from liquid_telemetry.signals import TRACER
from liquid_telemetry.tracing.otlp_json import Attributes

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


def converter(resource: Attributes) -> Callable[[str], ReadableSpan]:
    """Turns a span in OTLP JSON into the SDK's finished span."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

    sdk_resource = Resource(dict(resource))
    scope = InstrumentationScope(TRACER, __version__)

    def context(trace_id: str, span_id: str) -> SpanContext:
        return SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(TraceFlags.SAMPLED))

    def convert(encoded: str) -> ReadableSpan:
        span = json.loads(encoded)
        own = context(span["traceId"], span["spanId"])
        parent = context(span["traceId"], span["parentSpanId"]) if "parentSpanId" in span else None
        status = span["status"]
        code = StatusCode(status.get("code", 0))
        return ReadableSpan(
            name=span["name"],
            context=own,
            parent=parent,
            resource=sdk_resource,
            attributes=_decode(span["attributes"]),
            events=[
                Event(event["name"], _decode(event["attributes"]), int(event["timeUnixNano"]))
                for event in span.get("events", ())
            ],
            links=[Link(context(link["traceId"], link["spanId"])) for link in span.get("links", ())],
            kind=SpanKind.INTERNAL,
            status=Status(code, status.get("message") if code is StatusCode.ERROR else None),
            start_time=int(span["startTimeUnixNano"]),
            end_time=int(span["endTimeUnixNano"]),
            instrumentation_scope=scope,
        )

    return convert


def _decode(attributes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {item["key"]: _decode_value(item["value"]) for item in attributes}


def _decode_value(value: Mapping[str, Any]) -> Any:
    kind, content = next(iter(value.items()))
    return {"intValue": int, "doubleValue": float}.get(kind, lambda same: same)(content)
