"""What libraries say on the terminal: nothing twice, nothing through the progress bar."""

from __future__ import annotations

import logging
import sys
import warnings

QUIET = (
    ".*does not have many workers.*",  # series are held in memory: workers would only slow the loader down
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 under torch 2.13
    r"[\s\S]*(JsonargparseDeprecation|deprecated in v4)",  # Lightning 2.6 under jsonargparse 4.53
)
SENDERS = ("http.trace_exporter", "grpc.exporter")
"""Loggers of OpenTelemetry that speak of every attempt to send."""


class CurrentStderr(logging.Handler):
    """Writes to the stderr of the moment, which puts lines above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        sys.stderr.write(self.format(record) + "\n")


class Once(logging.Filter):
    """Lets each kind of message pass once, whatever values are put into it."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the message is the first of its kind."""
        new = record.msg not in self._seen
        self._seen.add(record.msg)
        return new


def is_no_advertisement(record: logging.LogRecord) -> bool:
    """Return whether `record` is not one of Lightning's tips to install a product."""
    return "Tip:" not in record.getMessage()


def tidy() -> None:
    """Set up what this process shows of Lightning's and OpenTelemetry's messages."""
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch").handlers[:] = [CurrentStderr()]
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_no_advertisement)
    for name in SENDERS:
        logging.getLogger(f"opentelemetry.exporter.otlp.proto.{name}").addFilter(Once())
