"""Whether a run still goes on, or somebody is about to write of its end."""

from __future__ import annotations

import json
from pathlib import Path

import psutil

from liquid_telemetry.files import last_lines
from liquid_telemetry.live.archive import MANIFEST
from liquid_telemetry.live.log import ENDS
from liquid_telemetry.spool import is_locked
from liquid_train.housekeeping.folders import RunFolder

DAY = 86_400.0
_STARTS = 60.0  # seconds; an exporter needs a few to start


def why_live(run: RunFolder, now: float) -> str | None:
    """Return why a run must not be touched, or None when it is over.

    It is not over while a process holds its seat in the spool or a living exporter has it; without a spool (metrics
    are off) while its process lives, for ``test`` may follow ``fit``; without an end in its log while its process
    lives and, as that may be on another host, for a day.
    """
    try:
        seated = _is_seated(run, now)
    except OSError as error:
        return f"may be live: its spool cannot be read ({error.strerror})"
    if seated is not None:
        return seated
    ended = has_ended(run.path)
    if _has_process(run) and (not ended or run.manifest.get("spool") is None):
        return f"live: process {run.manifest['pid']} runs, and nothing says that it is done with it"
    if ended:
        return None
    if now - run.touched < DAY:
        return "may be live elsewhere: no end in its log, and written to within a day"
    return None


def _is_seated(run: RunFolder, now: float) -> str | None:
    spool = run.manifest.get("spool")
    if not isinstance(spool, str) or "/" in run.run_id or run.run_id in ("", ".", ".."):
        return None
    seat = Path(spool) / "runs" / run.run_id
    if not seat.is_dir():
        return None
    if any(is_locked(lock) for lock in seat.glob("*.lock")):
        return "live: its process holds its seat"
    if is_locked(Path(spool) / "exporter.lock"):
        return "live: the exporter still tells of its end"
    if now - seat.stat().st_mtime < _STARTS:
        return "live until a moment ago: an exporter may be about to tell of its end"
    return None


def has_ended(folder: Path) -> bool:
    """Whether the last lines of its log tell of its end, and of no start after it."""
    try:
        lines = last_lines(folder / "events.jsonl")
    except OSError:
        return False
    for line in reversed(lines):
        event = _event(line)
        if event in ENDS or event == "training_started":
            return event in ENDS
    return False


def _event(line: str) -> object:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fields.get("event") if isinstance(fields, dict) else None


def _has_process(run: RunFolder) -> bool:
    """Whether the process of the manifest lives: one that began later has got its number."""
    pid = run.manifest.get("pid")
    if not isinstance(pid, int):
        return False
    try:
        return psutil.Process(pid).create_time() <= (run.path / MANIFEST).stat().st_mtime + 1
    except (psutil.Error, OSError, ValueError, OverflowError):
        return False
