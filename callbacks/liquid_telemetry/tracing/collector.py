"""What a process knows of a collector, and what the SDK says while it sends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from liquid_telemetry.tracing.endpoint import Destination

PATIENCE = 1.5
_BACK_OFF = (1.0, 60.0)
_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
)


class Collector:
    """One for all runs of a process that send to it.

    After a failure it is left alone for a pause that doubles up to a minute. The ends of runs wait for it ``patience``
    seconds in all: what was waited in vain is not waited again until it answers.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.answered()

    @property
    def is_failing(self) -> bool:
        """Whether it failed when last tried."""
        return self._pause > _BACK_OFF[0]

    @property
    def is_left_alone(self) -> bool:
        """Whether it failed so recently that it is not tried now."""
        return self.is_failing and self.now() < self._retry_at

    def answered(self) -> None:
        """It took spans."""
        self.patience = PATIENCE
        self._pause, self._retry_at = _BACK_OFF[0], 0.0

    def failed(self) -> None:
        """It did not take spans."""
        self._retry_at, self._pause = self.now() + self._pause, min(2 * self._pause, _BACK_OFF[1])

    def waited_in_vain(self, seconds: float) -> None:
        """The end of a run has waited for it."""
        self.patience = max(0.0, self.patience - seconds)


_collectors: dict[Destination, Collector] = {}


def collector_at(destination: Destination) -> Collector:
    """The collector, known from earlier runs or new."""
    return _collectors.setdefault(destination, Collector())


class Overheard(logging.Filter):
    """Keeps what one thread logs by the SDK's exporters out of the user's log, and the first line of it at hand.

    Each failure would be half a dozen lines there.

    Attributes:
        said: The line, "" if nothing was said.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is another thread's."""
        if record.thread != self._thread:
            return True
        self.said = self.said or record.getMessage()
        return False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """To this thread."""
        self._thread = threading.get_ident()
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        for logger in loggers:
            logger.addFilter(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(self)
