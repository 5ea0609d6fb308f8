"""What spans say: attributes in our namespace, and why a run failed."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from liquid_telemetry.errors import text_of
from liquid_telemetry.observe.records import RunEnded, phase_seconds
from liquid_telemetry.signals import NAMESPACE
from liquid_telemetry.tracing.otlp_json import SpanEvent, Value
from liquid_telemetry.tracing.sink import Failure

_NAMES = {"data": "data_wait"}
_MESSAGE, _STACK = 2_000, 16_000


def known(values: Mapping[str, Any]) -> dict[str, Value]:
    """The values that are known, under their full names."""
    return {NAMESPACE + name: value for name, value in values.items() if value is not None}


def phase_durations(phase_ns: Sequence[int]) -> dict[str, float]:
    """Attributes of the phases: seconds by short name."""
    return {f"{_NAMES.get(name, name)}.duration": value for name, value in phase_seconds(phase_ns).items()}


def failure_of(record: RunEnded) -> Failure | None:
    """How a span is marked as failed: by the exception that ended the run, if the run failed by one."""
    error = record.error
    if record.outcome != "failed" or error is None:
        return None
    kind, message = type(error).__qualname__, text_of(error, _MESSAGE)
    stack = "".join(traceback.format_exception(error))[-_STACK:]
    exception = {"exception.type": kind, "exception.message": message, "exception.stacktrace": stack}
    return Failure(kind, message, SpanEvent("exception", record.time_ns, exception))
