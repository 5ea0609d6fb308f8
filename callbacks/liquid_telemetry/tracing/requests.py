"""Spans that are made one by one, as requests come: the API's spans without the SDK, written in the background."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from liquid_telemetry import __version__
from liquid_telemetry.errors import text_of
from liquid_telemetry.files import LineFile
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.signals import TRACER
from liquid_telemetry.tracing.otlp_json import (
    ERROR,
    Attributes,
    LineEncoder,
    SpanData,
    SpanEvent,
    encode_span,
)
from liquid_telemetry.tracing.send import Sender

_WAITING = 8192
_MESSAGE, _STACK = 2_000, 16_000


class RequestTracer:
    """Starts spans as an OpenTelemetry tracer does, and keeps them until :meth:`flush` writes them.

    A trace is kept whole or not at all: when its first span here ends. At most ``per_second`` are kept, and those that
    failed beyond it; the rest is counted as dropped. A caller that does not sample its trace is followed.

    Args:
        file: Where to.
        resource: Resource attributes.
        faults: Where drops are counted.
        sender: Sends the same spans to a collector.
        per_second: Traces kept of a second.
    """

    def __init__(
        self,
        file: LineFile,
        resource: Attributes,
        faults: Faults,
        sender: Sender | None = None,
        per_second: float = 50.0,
    ) -> None:
        self._file = file
        self._encoder = LineEncoder(resource, TRACER, __version__)
        self._faults = faults
        self._sender = sender
        self._per_second, self._tokens, self._filled = per_second, per_second, time.monotonic()
        self._lock = threading.Lock()
        self._waiting: list[RequestSpan] = []
        self._draw = random.Random(os.urandom(16)).getrandbits  # noqa: S311  (ids; no seed of the program's moves them)

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        start_time: int | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> trace.Span:
        """Begin a span under the one in ``context``, else under the current one, else in a trace of its own."""
        parent = trace.get_current_span(context)
        around = parent.get_span_context()
        if around.is_valid and not around.trace_flags.sampled:
            return NonRecordingSpan(around)
        trace_id = around.trace_id if around.is_valid else self._draw(128)
        own = SpanContext(
            trace_id,
            self._draw(64),
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
            trace_state=around.trace_state,
        )
        first = None
        if isinstance(parent, RequestSpan) and parent.tracer is self:
            first = parent.first or parent
        return RequestSpan(self, name, own, around.span_id or None, first, start_time, attributes)

    def keep(self, spans: Sequence[RequestSpan], failed: bool) -> None:
        """Take a finished trace, or what ends after it."""
        with self._lock:
            if not (failed or self._has_token()):
                self._faults.drop("tracing", "rate", len(spans))
            elif len(self._waiting) + len(spans) > _WAITING:
                self._faults.drop("tracing", "queue_full", len(spans))
            else:
                self._waiting += spans

    def _has_token(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self._per_second, self._tokens + (now - self._filled) * self._per_second)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def flush(self) -> None:
        """Write what has ended, and hand it to the sender.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            spans, self._waiting = self._waiting, []
        if not spans:
            return
        encoded = [json.dumps(encode_span(span.data()), separators=(",", ":")) for span in spans]
        if self._sender is not None:
            self._sender.put(encoded)
        self._file.write(self._encoder.wrap(encoded))

    def close(self) -> None:
        """Write the rest, close the file, and give the sender its deadline."""
        try:
            self.flush()
        finally:
            self._file.close()
            if self._sender is not None:
                self._sender.close()


class RequestSpan(NonRecordingSpan):
    """A span of ours that a program may add to, as to any other.

    Attributes:
        tracer: Whose it is.
        first: The span that began its trace here; None where it did itself.
    """

    def __init__(
        self,
        tracer: RequestTracer,
        name: str,
        context: SpanContext,
        parent_id: int | None,
        first: RequestSpan | None,
        start_time: int | None,
        attributes: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(context)
        self.tracer = tracer
        self.first = first
        self._name, self._parent_id = name, parent_id
        self._start = self._end = start_time or time.time_ns()
        self._attributes: dict[str, Any] = dict(attributes or {})
        self._events: list[SpanEvent] = []
        self._status, self._message = 0, ""
        self._failed = self._ended = False
        self._ready: list[RequestSpan] = []

    def is_recording(self) -> bool:
        """Whether it has not ended."""
        return not self._ended

    def set_attribute(self, key: str, value: Any) -> None:
        """Add an attribute; what OTLP does not have as a plain value becomes text."""
        self._attributes[key] = _plain(value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add several."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def update_name(self, name: str) -> None:
        """Change its name."""
        self._name = name

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        """Add something that happened within it."""
        plain = {key: _plain(value) for key, value in (attributes or {}).items()}
        self._events.append(SpanEvent(name, timestamp or time.time_ns(), plain))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an exception with its traceback."""
        told = {
            "exception.type": type(exception).__qualname__,
            "exception.message": text_of(exception, _MESSAGE),
            "exception.stacktrace": "".join(traceback.format_exception(exception))[-_STACK:],
        }
        self.add_event("exception", {**told, **(attributes or {})}, timestamp)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Mark it as failed, or as well."""
        code = status.status_code if isinstance(status, Status) else status
        text = status.description if isinstance(status, Status) else description
        self._status, self._message = code.value, (text or "")[:_MESSAGE] if code.value == ERROR else ""

    def end(self, end_time: int | None = None) -> None:
        """End it, once; the span that began the trace takes the others along."""
        if self._ended:
            return
        self._ended = True
        self._end, first = end_time or time.time_ns(), self.first or self
        first._failed = first._failed or self._status == ERROR
        if first is self:
            self._ready.append(self)
            self.tracer.keep(self._ready, self._failed)
            self._ready = []
        elif first._ended:
            self.tracer.keep([self], failed=False)
        else:
            first._ready.append(self)

    def data(self) -> SpanData:
        """What is written of it once it has ended."""
        context = self.get_span_context()
        return SpanData(
            name=self._name,
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id=f"{self._parent_id:016x}" if self._parent_id else None,
            start_ns=self._start,
            end_ns=self._end,
            attributes=self._attributes,
            status=self._status,
            message=self._message,
            events=tuple(self._events),
        )


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bool, int, float)) else str(value)
