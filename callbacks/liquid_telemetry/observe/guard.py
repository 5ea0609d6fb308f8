"""Telemetry never stops a run: faults are logged once, counted, and swallowed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from liquid_telemetry.errors import NonFiniteLossError, text_of

_log = logging.getLogger("liquid_telemetry")
_MAX_REASONS = 50

swallowed: list[str] = []
"""The last faults of this process, as text; tests empty it and fail when something is in it.

An exception itself would keep alive, by its traceback, the batch that it met.
"""


class Faults:
    """Counts what went wrong and what was not recorded, by signal and reason."""

    def __init__(self) -> None:
        self.errors: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[tuple[str, str]] = Counter()

    def reset(self) -> None:
        """A new run begins, whose counters start at zero."""
        self.errors.clear()
        self.dropped.clear()

    def report(self, signal: str, error: Exception) -> None:
        """Count a fault; log its first occurrence.

        Raises:
            NonFiniteLossError: That is no fault: the user asked for it.
        """
        if isinstance(error, NonFiniteLossError):
            raise error
        reason = type(error).__name__
        if len(self.errors) >= _MAX_REASONS and (signal, reason) not in self.errors:
            reason = "other"
        self.errors[signal, reason] += 1
        text = text_of(error)
        if self.errors[signal, reason] == 1:
            with suppress(Exception):  # a handler of the user's may raise
                _log.warning("%s: %s: %s (training goes on; reported once)", signal, reason, text)
                _log.debug("%s", signal, exc_info=error)
        swallowed.append(f"{signal}: {reason}: {text}")
        del swallowed[:-100]

    def drop(self, signal: str, reason: str, count: int = 1) -> None:
        """Count signals that were not recorded."""
        self.dropped[signal, reason] += count

    @contextmanager
    def guard(self, signal: str) -> Iterator[None]:
        """Swallow and count any ``Exception`` of the body; Ctrl-C and exits pass."""
        try:
            yield
        except Exception as error:
            self.report(signal, error)
