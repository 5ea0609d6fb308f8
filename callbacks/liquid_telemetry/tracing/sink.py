"""Where spans go: to our own file and sender, or to the provider that the user brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from liquid_telemetry.observe.backend import SpanRef
from liquid_telemetry.tracing.otlp_json import Attributes, SpanEvent


@dataclass
class OpenSpan:
    """A span that has begun."""

    name: str
    ref: SpanRef
    parent: SpanRef | None
    start_ns: int
    attributes: Attributes
    links: tuple[SpanRef, ...] = ()
    native: Any = None
    """The SDK's span, where a provider of the user's made one."""


class Failure(NamedTuple):
    """Marks a span as failed."""

    kind: str
    message: str
    event: SpanEvent


class BatchSpan(NamedTuple):
    """A batch to be recorded."""

    start_ns: int
    end_ns: int
    batch_index: int
    samples: int
    global_step: int
    loss: float | None
    skipped: bool
    phase_ns: Sequence[int]
    """Nanoseconds of the phases, in the order of the catalogue; empty for stages other than train."""


class Sink(Protocol):
    """Takes spans."""

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
        """Begin a span; without a parent it begins a trace of its own. The ids are wishes."""

    def close(
        self, span: OpenSpan, end_ns: int, attributes: Attributes, failure: Failure | None = None
    ) -> None:
        """End a span."""

    def batches(self, name: str, epoch: OpenSpan, batches: Sequence[BatchSpan]) -> Sequence[str]:
        """Record batches of an epoch as its children; their ids, none where they are not sampled."""

    def flush(self) -> None:
        """Write what has been recorded."""

    def shutdown(self) -> None:
        """Write the rest, within a bounded time, and let go of files and threads."""
