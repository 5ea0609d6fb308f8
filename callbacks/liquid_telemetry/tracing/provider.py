"""The user's provider as a sink: OpenTelemetry API only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, TraceFlags, Tracer, TracerProvider

from liquid_telemetry import __version__
from liquid_telemetry.observe.backend import SpanRef
from liquid_telemetry.signals import TRACER
from liquid_telemetry.tracing.batch_template import batch_attributes
from liquid_telemetry.tracing.otlp_json import Attributes
from liquid_telemetry.tracing.sink import BatchSpan, Failure, OpenSpan

_MOST = 64


def global_provider() -> TracerProvider | None:
    """The SDK provider that the user's program has installed, or None."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)) else provider


def is_within_a_span() -> bool:
    """Whether the user's program has a span open here."""
    return trace.get_current_span().get_span_context().is_valid


class ProviderSink:
    """Makes spans with the user's provider, after the fact; it neither flushes nor shuts the provider down.

    What the provider decided on sampling a span holds for its children.

    Args:
        provider: The user's.
        sampled: Whether a parent that is not of this sink's is sampled.
    """

    def __init__(self, provider: TracerProvider, sampled: bool = True) -> None:
        self._tracer: Tracer = provider.get_tracer(TRACER, __version__)
        self._foreign = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        self._contexts: dict[SpanRef, SpanContext] = {}

    def open(
        self,
        name: str,
        start_ns: int,
        attributes: Attributes,
        parent: SpanRef | None = None,
        links: tuple[SpanRef, ...] = (),
        span_id: str | None = None,
        trace_id: str | None = None,
    ) -> OpenSpan:
        """Begin a span; the provider chooses its ids."""
        native = self._tracer.start_span(
            name,
            context=Context() if links else self._parent(parent),
            start_time=start_ns,
            attributes=dict(attributes),
            links=[trace.Link(self._context(link)) for link in links],
        )
        ref = _ref(native)
        self._remember(ref, native.get_span_context())
        return OpenSpan(name, ref, parent, start_ns, attributes, links, native)

    def close(
        self, span: OpenSpan, end_ns: int, attributes: Attributes, failure: Failure | None = None
    ) -> None:
        """End a span."""
        native: Span = span.native
        native.set_attributes(dict(attributes))
        if failure is not None:
            native.set_attribute("error.type", failure.kind)
            native.add_event(failure.event.name, dict(failure.event.attributes), failure.event.time_ns)
            native.set_status(Status(StatusCode.ERROR, failure.message))
        native.end(max(span.start_ns, end_ns))

    def batches(self, name: str, epoch: OpenSpan, batches: Sequence[BatchSpan]) -> Sequence[str]:
        """Record batches of an epoch as its children; their ids, none where the provider does not sample them."""
        context = self._parent(epoch.ref)
        ids = []
        for batch in batches:
            attributes = {**epoch.attributes, **batch_attributes(batch)}
            span = self._tracer.start_span(
                name, context=context, start_time=batch.start_ns, attributes=attributes
            )
            span.end(max(batch.start_ns, batch.end_ns))
            if span.get_span_context().trace_flags.sampled:
                ids.append(_ref(span).span_id)
        return ids if len(ids) == len(batches) else []

    def _parent(self, parent: SpanRef | None) -> Any:
        if parent is None:
            return None
        return trace.set_span_in_context(trace.NonRecordingSpan(self._context(parent)), Context())

    def _context(self, ref: SpanRef) -> SpanContext:
        known = self._contexts.get(ref)
        if known is None:
            return SpanContext(int(ref.trace_id, 16), int(ref.span_id, 16), False, self._foreign)
        self._remember(ref, known)
        return known

    def _remember(self, ref: SpanRef, context: SpanContext) -> None:
        """Keep a few, the last used last: the root is a parent again and again."""
        self._contexts.pop(ref, None)
        self._contexts[ref] = context
        if len(self._contexts) > _MOST:
            del self._contexts[next(iter(self._contexts))]

    def flush(self) -> None:
        """Nothing: the provider exports when it likes."""

    def shutdown(self) -> None:
        """Nothing: the provider is the user's."""


def _ref(span: Span) -> SpanRef:
    context = span.get_span_context()
    return SpanRef(f"{context.trace_id:032x}", f"{context.span_id:016x}")
