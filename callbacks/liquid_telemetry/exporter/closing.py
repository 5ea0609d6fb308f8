"""Writing down what a dead process could not: its ``training_failed`` event and the spans it left open."""

from __future__ import annotations

import json
import math
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from liquid_telemetry.spool import RunRecord
from liquid_telemetry.tracing.unfinished import finish_trace

EVENT = "training_failed"
_TAIL = 65_536


def finish_story(record: RunRecord, reason: str, last: dict[str, float | None]) -> None:
    """Finish the log and the trace of a run whose process has died; the one even if the other cannot be.

    Args:
        record: Of the rank that died.
        reason: One of the catalogue's failure reasons.
        last: As for :func:`report_death`.

    Raises:
        OSError: A file cannot be written.
        ValueError: The notes on open spans are damaged.
    """
    try:
        report_death(record, reason, last)
    finally:
        if record.run_dir is not None and record.traces is not None:
            finish_trace(Path(record.run_dir), Path(record.traces), time.time_ns(), {"reason": reason})


def report_death(record: RunRecord, reason: str, last: dict[str, float | None]) -> None:
    """Append the ``training_failed`` event to the run's log, unless it is there already.

    A line that the process left half written is cut off, so that every line stays valid JSON.

    Args:
        record: Of the rank that died.
        reason: One of the catalogue's failure reasons.
        last: What the metrics last said: ``epoch``, ``global_step``, ``loss``, ``last_progress`` (unix seconds).

    Raises:
        OSError: The log cannot be written.
    """
    if record.events is None or not Path(record.events).exists():
        return
    with Path(record.events).open("r+b") as log:
        tail = _tail(log)
        if any(
            line.get("event") == EVENT and line.get("run_id") == record.run_id for line in map(_decode, tail)
        ):
            return
        _end_last_line(log, tail)
        log.write(json.dumps(_event(record, reason, last), allow_nan=False).encode() + b"\n")


def _tail(log: BinaryIO) -> list[bytes]:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(size - _TAIL, 0))
    return log.read().split(b"\n")


def _decode(line: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(line)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _end_last_line(log: BinaryIO, tail: list[bytes]) -> None:
    """Leave the log open at the beginning of a line."""
    size = log.seek(0, os.SEEK_END)
    if not tail[-1]:
        return
    if _decode(tail[-1]):
        log.write(b"\n")
    else:
        log.seek(size - len(tail[-1]))
        log.truncate()


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def _event(record: RunRecord, reason: str, last: dict[str, float | None]) -> dict[str, Any]:
    now = datetime.now(timezone.utc)
    return {
        "timestamp": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": "error",
        "event": EVENT,
        "logger": "liquid_telemetry.exporter",
        "run_id": record.run_id,
        "model_name": record.model_name,
        "trace_id": record.trace_id,
        "stage": record.stage,
        "reason": reason,
        "error_type": record.error_type,
        "error_message": record.error_message or "the process ended without a word",
        "traceback": None,
        "duration_seconds": max(now.timestamp() - record.started, 0.0),
        "rank": record.rank,
        "pid": record.pid,
        "epoch": record.epoch,
        "batch": record.batch,
        **{name: _finite(value) for name, value in last.items() if value is not None},
    }
