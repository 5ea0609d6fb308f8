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
HOUR = 3_600.0
_BEGINS = ("training_started", "model_deployment_started")
_OVER = (*ENDS, "serving_ended")
_DEPLOYED = "model_deployment_completed"
"""The end of an export, which names its folder; a server has only begun."""
_STARTS = 60.0  # seconds; an exporter needs a few to start


def why_live(run: RunFolder, now: float) -> str | None:
    """Return why a run must not be touched, or None when it is over.

    It is not over while a process holds its seat in the spool or a living exporter has it; without a spool (metrics
    are off) while its process lives, for ``test`` may follow ``fit``; without an end in its log while its process
    lives and, as that may be on another host, for a day; where it only ever tests, predicts or measures, for an hour.
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
    wait, name = (DAY, "a day") if begins_long_work(run.path) else (HOUR, "an hour")
    if now - run.touched < wait:
        return f"may be live elsewhere: no end in its log, and written to within {name}"
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
    for fields in map(_fields, reversed(lines)):
        event = fields.get("event")
        if event in _BEGINS or event in _OVER or (event == _DEPLOYED and "path" in fields):
            return event not in _BEGINS
    return False


def begins_long_work(folder: Path) -> bool:
    """Whether the first lines of its log, where there is one, tell of training or serving."""
    try:
        with (folder / "events.jsonl").open("rb") as file:
            lines = file.read(65_536).decode("utf-8", "replace").splitlines()
    except OSError:
        return (folder / "checkpoints").is_dir()
    return (
        any(fields.get("event") in _BEGINS for fields in map(_fields, lines))
        or (folder / "checkpoints").is_dir()
    )


def _fields(line: str) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _has_process(run: RunFolder) -> bool:
    """Whether the process of the manifest lives: one that began later has got its number."""
    pid = run.manifest.get("pid")
    if not isinstance(pid, int):
        return False
    try:
        return psutil.Process(pid).create_time() <= (run.path / MANIFEST).stat().st_mtime + 1
    except (psutil.Error, OSError, ValueError, OverflowError):
        return False
