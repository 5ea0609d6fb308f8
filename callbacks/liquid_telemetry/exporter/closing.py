"""Writing down what a dead process could not: its ``training_failed`` event and the spans it left open."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from liquid_telemetry.files import LineFile
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

    Args:
        record: Of the rank that died.
        reason: One of the catalogue's failure reasons.
        last: What the metrics last said: ``epoch``, ``global_step``, ``loss``, ``last_progress`` (unix seconds).

    Raises:
        OSError: The log cannot be written.
    """
    if record.events is None or not Path(record.events).exists():
        return
    log = Path(record.events)
    if any(line.get("event") == EVENT and line.get("run_id") == record.run_id for line in _last_lines(log)):
        return
    file = LineFile(log)
    try:
        file.write(json.dumps(_event(record, reason, last), allow_nan=False) + "\n")
    finally:
        file.close()


def _last_lines(log: Path) -> Iterator[dict[str, Any]]:
    with log.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        lines = file.read().split(b"\n")
    for line in lines:
        with contextlib.suppress(ValueError):
            decoded = json.loads(line)
            if isinstance(decoded, dict):
                yield decoded


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
