"""Sending spans to a collector: in a thread of its own, bounded, waited for no longer than its patience lasts."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.tracing.collector import Collector, Overheard, collector_at
from liquid_telemetry.tracing.convert import converter
from liquid_telemetry.tracing.endpoint import Destination
from liquid_telemetry.tracing.otlp_json import Attributes

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_log = logging.getLogger("liquid_telemetry")
_QUEUE = 512
_AT_ONCE = 1024
_REASON_CHARACTERS = 300


class Sender:
    """Hands spans to an OpenTelemetry SDK exporter; what a collector does not take is dropped, counted and told.

    Args:
        destination: Builds the exporter, in the thread: that may take long.
        resource: Resource attributes.
        faults: Where drops are counted.
        file: Where the spans are as well.
        collector: What is known of it.
    """

    def __init__(
        self,
        destination: Destination,
        resource: Attributes,
        faults: Faults,
        file: Path,
        collector: Collector | None = None,
    ) -> None:
        self._destination = destination
        self._resource = resource
        self._faults = faults
        self._file = file
        self._collector = collector or collector_at(destination)
        self._queue: queue.Queue[Sequence[str] | None] = queue.Queue(_QUEUE)
        self._lock = threading.Lock()
        self._offered = self._settled = self._lost = 0
        self._is_last = self._closing = self._given_up = False
        self._overheard = Overheard()
        self._thread = threading.Thread(target=self._run, name="liquid-telemetry-otlp", daemon=True)
        self._thread.start()

    def put(self, spans: Sequence[str]) -> None:
        """Queue encoded spans; drop them when the queue is full."""
        self._offered += len(spans)
        try:
            self._queue.put_nowait(spans)
        except queue.Full:
            self._settle(len(spans), "queue_full")

    def close(self) -> None:
        """Send the rest while the collector's patience lasts, and tell what was lost."""
        now, collector = self._collector.now, self._collector
        start, self._closing = now(), True
        self._join(start + collector.patience)
        with self._lock:
            self._given_up = True
        missing = self._offered - self._settled
        if missing:
            self._drop(missing, "deadline" if self._thread.is_alive() else "no_exporter")
            collector.failed()
            with suppress(queue.Full):
                self._queue.put_nowait(None)  # wakes a thread that has just found the queue empty
        if collector.is_failing:
            collector.waited_in_vain(now() - start)
        if self._lost:
            self._tell()

    def _join(self, deadline: float) -> None:
        now = self._collector.now
        if self._thread.is_alive():
            with suppress(queue.Full):
                self._queue.put(None, timeout=max(0.0, deadline - now()))
            self._thread.join(max(0.0, deadline - now()))

    def _tell(self) -> None:
        _log.warning(
            "tracing: %d of %d spans did not reach %s; they are in %s%s",
            self._lost,
            self._offered,
            self._destination.url,
            os.fspath(self._file),
            self._why,
        )

    @property
    def _why(self) -> str:
        said = self._overheard.said[:_REASON_CHARACTERS]
        return f" ({said})" if said else ""

    def _run(self) -> None:
        with self._faults.guard("tracing"), self._overheard.listening():
            exporter: Any = None
            while spans := self._next():
                if self._collector.is_left_alone:
                    self._settle(len(spans), "collector_unreachable")
                    continue
                if exporter is None:
                    exporter, convert = self._destination.build(), converter(self._resource)
                self._send(exporter, [convert(span) for span in spans])
            if exporter is not None:
                exporter.shutdown()

    def _next(self) -> list[str]:
        """All that waits, up to what one request should hold: a slow collector is asked seldom. [] at the end."""
        spans: list[str] = []
        while len(spans) < _AT_ONCE and not (self._is_last or self._given_up):
            try:
                more = self._queue.get(block=not spans)
            except queue.Empty:
                break
            if more is None:
                self._is_last = True
            else:
                spans += more
        return spans

    def _send(self, exporter: Any, spans: Sequence[ReadableSpan]) -> None:
        if self._export(exporter, spans):
            self._collector.answered()
            self._overheard.said = ""
            self._settle(len(spans))
        else:
            if not (self._collector.is_failing or self._closing):
                _log.warning(
                    "tracing: %s takes no spans, and is tried again%s", self._destination.url, self._why
                )
            self._collector.failed()
            self._settle(len(spans), "collector_unreachable")

    def _export(self, exporter: Any, spans: Sequence[ReadableSpan]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            return bool(exporter.export(spans) is SpanExportResult.SUCCESS)
        except Exception as error:
            self._faults.report("tracing", error)
            return False

    def _settle(self, count: int, lost_by: str | None = None) -> None:
        """Spans have been sent, or lost. What happens after the end is no longer counted: it has been, as lost."""
        with self._lock:
            if not self._given_up:
                self._settled += count
                if lost_by is not None:
                    self._drop(count, lost_by)

    def _drop(self, count: int, reason: str) -> None:
        self._lost += count
        self._faults.drop("tracing", reason, count)
