"""Writing down what a dead process could not: how it ended, in its log, and the spans it left open."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liquid_telemetry.exporter.event_line import event_line
from liquid_telemetry.exporter.exit_status import Exit
from liquid_telemetry.exporter.outcome import Outcome
from liquid_telemetry.files import LineFile, last_lines, shortened
from liquid_telemetry.memory import Memory
from liquid_telemetry.signals import EVENTS, LOG_TAIL
from liquid_telemetry.spool import Pulse, RunRecord
from liquid_telemetry.tracing.unfinished import finish_trace, innermost

_NO_EXIT = Exit()


@dataclass(frozen=True)
class Story:
    """What is known of a run whose process has died.

    Args:
        record: Of the rank that died.
        outcome: Of the run.
        text: How the process ended, in words.
        exit: How it ended, where that is known.
        memory: What it and its workers had when last sampled.
        last: What the metrics last said: ``epoch``, ``global_step``, ``loss``, ``last_progress`` (unix seconds).
        pulse: Its last sign of progress.
    """

    record: RunRecord
    outcome: Outcome
    text: str = "the process ended without a word"
    exit: Exit | None = None
    memory: Memory | None = None
    last: Mapping[str, float | None] = field(default_factory=dict)
    pulse: Pulse | None = None

    @property
    def event(self) -> str:
        """Name of the log event."""
        return f"training_{self.outcome.kind}"


def finish_story(story: Story) -> None:
    """Finish the log and the trace of a run whose process has died; the one even if the other cannot be.

    Raises:
        OSError: A file cannot be written.
        ValueError: The notes on open spans are damaged.
    """
    record = story.record
    try:
        report_death(story)
    finally:
        if record.run_dir is not None and record.traces is not None:
            cause = {"reason": story.outcome.reason, "outcome": story.outcome.kind}
            finish_trace(Path(record.run_dir), Path(record.traces), time.time_ns(), cause)


def report_death(story: Story) -> None:
    """Append the event to the run's log, unless it is there already; begin the log of a run that died in its start-up.

    Raises:
        OSError: The log cannot be written.
    """
    record = story.record
    if record.events is None or not Path(record.events).parent.is_dir():
        return
    log = Path(record.events)
    lines = last_lines(log) if log.exists() else []
    if any(_tells_the_end(line, record.run_id) for line in lines):
        return
    span = innermost(Path(record.run_dir)) if record.run_dir and record.traces else {}
    line = event_line(record, story.event, {**span, **_fields(story, shortened(lines, LOG_TAIL))})
    file = LineFile(log)
    try:
        file.write(line)
    finally:
        file.close()


def _tells_the_end(line: str, run_id: str) -> bool:
    try:
        decoded = json.loads(line)
    except ValueError:
        return False
    ends = ("training_failed", "training_interrupted")
    return isinstance(decoded, dict) and decoded.get("event") in ends and decoded.get("run_id") == run_id


def _fields(story: Story, tail: list[str]) -> dict[str, Any]:
    record, end, memory = story.record, story.exit or _NO_EXIT, story.memory
    known = {
        "stage": record.stage,
        "phase": story.pulse.phase if story.pulse is not None else None,
        "reason": story.outcome.reason,
        "known_by": story.outcome.known_by,
        "error_type": record.error_type,
        "error_message": record.error_message or story.text,
        "traceback": record.traceback,
        "exit_code": end.code,
        "signal": end.signal,
        "signal_name": end.signal_name,
        "duration_seconds": max((record.ended or time.time()) - record.started, 0.0),
        "rank": record.rank,
        "pid": record.pid,
        "epoch": record.epoch,
        "batch": record.batch,
        "global_step": None,
        "loss": None,
        "memory_process_bytes": memory.process if memory is not None else None,
        "memory_workers_bytes": memory.workers if memory is not None else None,
        "log_tail": tail,
    }
    known |= {name: _finite(value) for name, value in story.last.items() if value is not None}
    return {name: known[name] for name in (*EVENTS[story.event].fields, "last_progress") if name in known}


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
