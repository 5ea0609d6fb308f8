"""Our own sink: OTLP JSON lines in the run directory, and a sender when an endpoint is configured."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from liquid_telemetry import __version__
from liquid_telemetry.files import LineFile
from liquid_telemetry.observe.backend import SpanRef
from liquid_telemetry.signals import TRACER
from liquid_telemetry.tracing.batch_template import BatchTemplate
from liquid_telemetry.tracing.otlp_json import ERROR, Attributes, LineEncoder, SpanData, encode_span
from liquid_telemetry.tracing.send import Sender
from liquid_telemetry.tracing.sink import BatchSpan, Failure, OpenSpan

_LINE = 64
"""Batches in one go: their text stays small enough for the allocator to use the same memory again."""


class OwnSink:
    """Writes spans as they end. Ids come from the system, so that no seed repeats them or is moved by them.

    Args:
        file: Where to.
        resource: Resource attributes.
        trace_id: Of the run's trace.
        sender: Sends the same spans to a collector.
    """

    def __init__(
        self, file: LineFile, resource: Attributes, trace_id: str, sender: Sender | None = None
    ) -> None:
        self._file = file
        self._encoder = LineEncoder(resource, TRACER, __version__)
        self._trace_id = trace_id
        self._sender = sender
        self._buffer: list[str] = []
        self._template: tuple[SpanRef, BatchTemplate] | None = None

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
        """Begin a span. One with links and no parent begins a trace of its own."""
        own_trace = trace_id or (os.urandom(16).hex() if links else self._trace_id)
        ref = SpanRef(parent.trace_id if parent is not None else own_trace, span_id or os.urandom(8).hex())
        return OpenSpan(name, ref, parent, start_ns, attributes, links)

    def close(
        self, span: OpenSpan, end_ns: int, attributes: Attributes, failure: Failure | None = None
    ) -> None:
        """End a span."""
        data = SpanData(
            name=span.name,
            trace_id=span.ref.trace_id,
            span_id=span.ref.span_id,
            parent_id=span.parent.span_id if span.parent else None,
            start_ns=span.start_ns,
            end_ns=end_ns,
            attributes={**span.attributes, **attributes, **({"error.type": failure.kind} if failure else {})},
            status=ERROR if failure else 0,
            message=failure.message if failure else "",
            links=span.links,
            events=(failure.event,) if failure else (),
        )
        self._buffer.append(json.dumps(encode_span(data), separators=(",", ":")))

    def batches(self, name: str, epoch: OpenSpan, batches: Sequence[BatchSpan]) -> Sequence[str]:
        """Record batches of an epoch as its children; their ids."""
        if self._template is None or self._template[0] != epoch.ref:
            self._template = epoch.ref, BatchTemplate(name, epoch.ref, epoch.attributes)
        ids = os.urandom(8 * len(batches)).hex()
        span_ids = [ids[at : at + 16] for at in range(0, len(ids), 16)]
        for at in range(0, len(batches), _LINE):
            self._buffer += self._encoded(span_ids[at : at + _LINE], batches[at : at + _LINE])
            self.flush()
        return span_ids

    def _encoded(self, span_ids: Sequence[str], batches: Sequence[BatchSpan]) -> list[str]:
        assert self._template is not None
        fill = self._template[1].fill
        if self._sender is None:
            return [fill(span_ids, batches)]
        return [fill([span_id], [batch]) for span_id, batch in zip(span_ids, batches, strict=True)]

    def flush(self) -> None:
        """Write what has been recorded; hand it to the sender."""
        if not self._buffer:
            return
        spans, self._buffer = self._buffer, []
        if self._sender is not None:
            self._sender.put(spans)
        self._file.write(self._encoder.wrap(spans))

    def shutdown(self) -> None:
        """Write the rest, close the file, and give the sender its deadline."""
        try:
            self.flush()
        finally:
            self._file.close()
            if self._sender is not None:
                self._sender.close()
