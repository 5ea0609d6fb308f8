"""Runs that are over, from what they left in their directories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from liquid_telemetry.live.history import FILE, read
from liquid_telemetry.live.log import Fields, Log, numbers, seconds
from liquid_telemetry.live.points import Points
from liquid_telemetry.live.summary import Summary

MANIFEST = "telemetry.json"
_MAX_BYTES = 1_000_000
_STATES = {
    "training_completed": "completed",
    "training_interrupted": "interrupted",
    "training_failed": "failed",
    "model_deployment_failed": "failed",
}


class ArchivedRun:
    """One run directory, looked at again when its files have changed.

    Args:
        folder: The directory, with ``telemetry.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points = Points()
        self.log = Log(folder / "events.jsonl")
        self._manifest: Fields = {}
        self._versions: dict[str, tuple[int, int] | None] = {}

    def refresh(self) -> None:
        """Look again.

        Raises:
            OSError: A file of it cannot be read.
        """
        if self._changed(MANIFEST):
            self._manifest = _read_manifest(self.folder / MANIFEST)
        if self._changed("events.jsonl"):
            self.log.refresh()
        if self._changed(FILE) or not len(self.points):
            self.points = self._read_points()

    def _read_points(self) -> Points:
        points = read(self.folder / FILE)
        if not len(points):
            for number in numbers(self.log.epochs):
                points.add(number)
        points.version = self.points.version + 1
        return points

    def _changed(self, name: str) -> bool:
        try:
            status = (self.folder / name).stat()
        except OSError:
            return False
        version = (status.st_mtime_ns, status.st_size)
        if self._versions.get(name) == version:
            return False
        self._versions[name] = version
        return True

    @property
    def live(self) -> bool:
        """Whether the process still works on it, as far as its log and its pid tell."""
        pid, first = self._manifest.get("pid"), self.log.first
        began = seconds(first.get("timestamp")) if first else None
        if self.log.end is not None or not isinstance(pid, int) or began is None:
            return False
        try:
            return psutil.Process(pid).create_time() <= began
        except (psutil.Error, ValueError, OverflowError):
            return False

    def summary(self) -> Summary:
        """The run in a few words."""
        first, end = self.log.first or {}, self.log.end
        last = self._last_values()
        accuracy = next((last[name] for name in ("val_accuracy", "accuracy") if name in last), None)
        return Summary(
            run_id=self.folder.name,
            model=str(first.get("model_name") or "unknown"),
            state=self._state(),
            live=self.live,
            reason=str((end or {}).get("reason") or ""),
            end=_in_words(end) if end else "",
            started=seconds(first.get("timestamp")),
            seen=self.log.last_time,
            epoch=last.get("epoch"),
            step=last.get("step"),
            loss=last.get("loss"),
            val_loss=last.get("val_loss"),
            accuracy=accuracy,
            ranks=first["world_size"] if isinstance(first.get("world_size"), int) else 1,
            trace_id=_text(self._manifest.get("trace_id")),
            trace_url=_text(self._manifest.get("trace_url")),
            folder=str(self.folder),
        )

    def _state(self) -> str:
        """A job that says nothing of its end is unknown; anything else just ends."""
        if self.log.end is not None:
            return _STATES[str(self.log.end["event"])]
        if self.live:
            return "running"
        first = self.log.first
        return "unknown" if first is None or first.get("event") == "training_started" else "ended"

    def _last_values(self) -> dict[str, float]:
        values = self.points.point(-1) if len(self.points) else {}
        epochs = list(numbers(self.log.epochs))
        return {**(epochs[-1] if epochs else {}), **values}


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the run directories in a folder, or the folder itself if it is one, the latest first."""
    if (folder / MANIFEST).is_file():
        yield folder
        return
    found = [path.parent for path in folder.glob(f"*/{MANIFEST}")]
    yield from sorted(found, key=lambda path: path.name, reverse=True)


def _read_manifest(path: Path) -> Fields:
    """Read the manifest; a damaged one says nothing, and the log still tells of the run."""
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES)
    try:
        decoded = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _in_words(end: Fields) -> str:
    message = " ".join(str(end.get("error_message") or "").split())
    said = ": ".join(filter(None, (_text(end.get("error_type")), message)))
    place = [f"{name} {end[name]}" for name in ("epoch", "batch") if end.get(name) is not None]
    text = said or (f"by {end['signal_name']}" if end.get("signal_name") else "")
    return f"{text} in {', '.join(place)}" if text and place and " in epoch " not in text else text
