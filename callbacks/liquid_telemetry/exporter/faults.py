"""The exporter's own faults: counted, and logged once a minute."""

from __future__ import annotations

import logging
import time

from liquid_telemetry.exporter.book import Book
from liquid_telemetry.signals import PREFIX

SIGNAL, _METRICS = "exporter", "metrics"
ERRORS = ("closing", "counters", "host", "http", "internal", "record", "snapshot", "spool")
DROPS = ("models", "series", "sinks")
_QUIET = 60.0

log = logging.getLogger("liquid_telemetry.exporter")


class Faults:
    """Counts faults and refusals in the book's sums."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._logged: dict[str, float] = {}
        for reason in ERRORS:
            self._count("telemetry_errors_total", reason, 0)
        for reason in DROPS:
            self._count("telemetry_dropped_total", reason, 0)

    def report(self, reason: str, error: Exception) -> None:
        """Count an error, ``reason`` is one of ``ERRORS``."""
        self._count("telemetry_errors_total", reason, 1)
        self._log(reason, f"{reason}: {type(error).__name__}: {error}", error)

    def expect_from_sink(self, kind: str) -> None:
        """Begin the counter of a sink's errors at zero."""
        self._count("telemetry_errors_total", kind, 0, _METRICS)

    def report_sink(self, kind: str, error: Exception) -> None:
        """Count a delivery that failed, as an error of the signal ``metrics``."""
        self._count("telemetry_errors_total", kind, 1, _METRICS)
        self._log(kind, f"{kind}: {type(error).__name__}: {error}", error)

    def drop(self, reason: str, text: str) -> None:
        """Count something that was refused because of a bound; ``reason`` is one of ``DROPS``."""
        self._count("telemetry_dropped_total", reason, 1)
        self._log(reason, f"{reason}: {text}", None)

    def _count(self, name: str, reason: str, amount: int, signal: str = SIGNAL) -> None:
        self._book.sums.add((PREFIX + name, (("reason", reason), ("signal", signal))), amount)
        self._book.changed = True

    def _log(self, reason: str, text: str, error: Exception | None) -> None:
        now = time.monotonic()
        if now - self._logged.get(reason, -_QUIET) >= _QUIET:
            self._logged[reason] = now
            log.warning("%s", text)
            log.debug("%s", reason, exc_info=error)
