"""Sending spans to a collector: in a thread of its own, bounded, never waited for longer than a deadline."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from liquid_telemetry import __version__
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.signals import TRACER
from liquid_telemetry.tracing.otlp_json import Attributes

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

INSTALL = "pip install 'liquid-train[otlp]'"
CLOSE_DEADLINE = 2.0
_QUEUE = 64
_BACK_OFF = (1.0, 60.0)


class Sender:
    """Hands spans to an OpenTelemetry SDK exporter.

    While the collector cannot be reached, spans are dropped and counted; it is tried again after a pause that
    doubles up to a minute, so that neither time nor log lines are spent on it.

    Args:
        make_exporter: Called in the thread: building an exporter may take long.
        resource: Resource attributes.
        faults: Where drops are counted.
    """

    def __init__(
        self, make_exporter: Callable[[], SpanExporter], resource: Attributes, faults: Faults
    ) -> None:
        self._make_exporter = make_exporter
        self._resource = resource
        self._faults = faults
        self._queue: queue.Queue[Sequence[str] | None] = queue.Queue(_QUEUE)
        self._put = self._settled = 0
        """Spans taken, and of those the sent and the dropped: each written by one thread."""
        self._thread = threading.Thread(target=self._run, name="liquid-telemetry-otlp", daemon=True)
        self._thread.start()

    def put(self, spans: Sequence[str]) -> None:
        """Queue encoded spans; drop them when the queue is full."""
        try:
            self._queue.put_nowait(spans)
            self._put += len(spans)
        except queue.Full:
            self._faults.drop("tracing", "queue_full", len(spans))

    def close(self) -> None:
        """Send the rest, for at most ``CLOSE_DEADLINE`` seconds."""
        deadline = time.monotonic() + CLOSE_DEADLINE
        with suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_DEADLINE / 2)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._faults.drop("tracing", "deadline", self._put - self._settled)

    def _run(self) -> None:
        with self._faults.guard("tracing"):
            exporter = self._make_exporter()
            convert = _converter(self._resource)
            pause, retry_at = _BACK_OFF[0], 0.0
            while (spans := self._queue.get()) is not None:
                if time.monotonic() < retry_at:
                    self._faults.drop("tracing", "collector_unreachable", len(spans))
                elif self._export(exporter, [convert(json.loads(span)) for span in spans]):
                    pause = _BACK_OFF[0]
                else:
                    self._faults.drop("tracing", "collector_unreachable", len(spans))
                    retry_at, pause = time.monotonic() + pause, min(2 * pause, _BACK_OFF[1])
                self._settled += len(spans)
            exporter.shutdown()

    def _export(self, exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            return exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:
            self._faults.report("tracing", error)
            return False


def _converter(resource: Attributes) -> Callable[[Mapping[str, Any]], ReadableSpan]:
    """Turns decoded OTLP JSON into the SDK's finished spans."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

    sdk_resource = Resource(dict(resource))
    scope = InstrumentationScope(TRACER, __version__)

    def context(trace_id: str, span_id: str) -> SpanContext:
        return SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(TraceFlags.SAMPLED))

    def convert(span: Mapping[str, Any]) -> ReadableSpan:
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
