"""What a signal implements: a short mapping from records to metrics, spans or log lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.pulse import Heart
from liquid_telemetry.observe.records import Record, RunInfo


class SpanRef(NamedTuple):
    """Identifiers of a span, as lower-case hex (32 and 16 digits)."""

    trace_id: str
    span_id: str


class Exemplar(NamedTuple):
    """The slowest recorded batch of a block and its span."""

    seconds: float
    span: SpanRef


@dataclass
class Correlation:
    """What the signals of a run know of one another.

    Tracing sets the spans that are open; logs and metrics name them. ``outputs`` is what the backends have said for
    ``telemetry.json``; metrics pass it on to the exporter process, which finishes a dead run's files. They pass on the
    pulse of ``heart`` as well, from which that process judges whether the run goes on.
    """

    heart: Heart = field(default_factory=lambda: Heart(Faults()))

    run: SpanRef | None = None
    epoch: SpanRef | None = None
    exemplar: Exemplar | None = None
    outputs: dict[str, str | None] = field(default_factory=dict)


class Backend(Protocol):
    """One signal of one run. Every call is guarded: what it raises is logged once and counted."""

    signal: str

    def start(self, run: RunInfo, correlation: Correlation, faults: Faults) -> None:
        """Open what the run needs; called again when a later stage continues the run."""

    def handle(self, record: Record) -> None:
        """Take a record; called in order, on the training thread."""

    def outputs(self) -> dict[str, str | None]:
        """What to write to ``telemetry.json``."""

    def close(self) -> None:
        """Write what is left, within a bounded time, and let go of files and threads."""
