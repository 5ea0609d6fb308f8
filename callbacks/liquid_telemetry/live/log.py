"""What the page shows of an event log, read on as the log grows."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from liquid_telemetry.signals import EVENTS
from liquid_telemetry.signals._events import COMMON_FIELDS

MAX_EPOCHS, MAX_EVENTS = 2000, 200
ENDS = ("training_completed", "training_interrupted", "training_failed", "model_deployment_failed")
_FIRST_BYTES = 64_000_000
_AT_ONCE = 8_000_000
_LONGEST_TEXT = 300
_EPOCH_FIELDS = EVENTS["training_epoch_completed"].fields
_NOT_SHOWN = {*COMMON_FIELDS, "traceback", "stacks", "log_tail", "phases", "metrics"}

Fields = dict[str, Any]


@dataclass
class Rows:
    """The last of many rows; ``seen`` counts those that are gone as well."""

    limit: int
    seen: int = 0
    rows: deque[Fields] = field(default_factory=deque)

    def add(self, row: Fields) -> None:
        """Add the newest."""
        self.seen += 1
        self.rows.append(row)
        if len(self.rows) > self.limit:
            self.rows.popleft()

    def after(self, known: int) -> dict[str, Any]:
        """What comes after the first ``known`` rows."""
        new = self.seen - known if 0 <= known <= self.seen else self.seen
        return {"seen": self.seen, "rows": list(self.rows)[-new:] if new else []}


class Log:
    """The epochs and the latest events of one log, rotated parts included.

    Args:
        path: The newest part.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epochs, self.events = Rows(MAX_EPOCHS), Rows(MAX_EVENTS)
        self.first: Fields | None = None
        """``training_started``, or whatever came first."""
        self.end: Fields | None = None
        """The event that ended the run, unless it went on."""
        self.last_time: float | None = None
        """Unix seconds of the last line."""
        self._file: BinaryIO | None = None
        self._rest = b""
        self._place: tuple[int, int, int] | None = None

    def refresh(self) -> None:
        """Read what is new, a bounded part of it at once.

        Raises:
            OSError: The log cannot be read.
        """
        if self._file is None:
            self._begin()
        budget = _AT_ONCE
        while self._file is not None:
            data = self._file.read(min(budget, 1_000_000))
            budget -= len(data)
            self._take(data)
            if budget <= 0 or (not data and not self._follow_rotation()):
                return

    def close(self) -> None:
        """Close the file; a later refresh goes on where this one stopped, unless the log has been rotated."""
        if self._file is not None:
            status = os.fstat(self._file.fileno())
            self._place = status.st_ino, status.st_dev, self._file.tell()
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        """Go on where it was closed, else take up all that is there, of a very large log the end."""
        if self._place is not None and self._open():
            assert self._file is not None
            status = os.fstat(self._file.fileno())
            if (status.st_ino, status.st_dev) == self._place[:2]:
                self._file.seek(self._place[2])
            return
        room = _FIRST_BYTES
        for part in [self.path, *_older_parts(self.path)]:
            room -= part.stat().st_size if part.exists() else 0
            if room < 0:
                break
        older = [part for part in reversed(_older_parts(self.path)) if part.exists()]
        for part in older[-2:] if room < 0 else older:
            self._take(part.read_bytes()[-_FIRST_BYTES:])
        self._open()

    def _open(self) -> bool:
        try:
            self._file = self.path.open("rb")
        except FileNotFoundError:
            return False
        return True

    def _follow_rotation(self) -> bool:
        """Whether the file has been rotated away, and its successor is open now."""
        assert self._file is not None
        mine = os.fstat(self._file.fileno())
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        if (mine.st_ino, mine.st_dev) == (there.st_ino, there.st_dev):
            return False
        self._file.close()
        return self._open()

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            fields = _parse(line)
            if fields is not None:
                self._note(fields)

    def _note(self, fields: Fields) -> None:
        self.first = self.first or fields
        self.last_time = seconds(fields.get("timestamp")) or self.last_time
        name = fields.get("event")
        if name == "training_epoch_completed":
            row = {key: fields.get(key) for key in _EPOCH_FIELDS}
            self.epochs.add({"time": self.last_time, **row})
            return
        if name in ENDS:
            self.end = fields
        elif name == "training_started":
            self.end = None
        self.events.add(_event(fields, self.last_time))


def _older_parts(path: Path) -> list[Path]:
    """Rotated parts, the newest first."""
    number = re.compile(rf"{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}")
    found = ((number.fullmatch(other.name), other) for other in path.parent.glob(f"{path.stem}.*"))
    return [other for _, other in sorted((int(match[1]), other) for match, other in found if match)]


def _parse(line: bytes) -> Fields | None:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _event(fields: Fields, time: float | None) -> Fields:
    said = {key: value for key, value in fields.items() if key not in _NOT_SHOWN and value is not None}
    text = ", ".join(f"{key} {_short(value)}" for key, value in said.items())
    return {
        "time": time,
        "level": str(fields.get("level", ""))[:20],
        "event": str(fields.get("event", ""))[:100],
        "text": text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…",
    }


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else " ".join(str(value).split())


def seconds(timestamp: Any) -> float | None:
    """Unix seconds of an event's timestamp."""
    try:
        return datetime.fromisoformat(str(timestamp).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def numbers(rows: Rows) -> Iterator[dict[str, float]]:
    """The epochs as points, where a run has no history of its own."""
    names = {"epoch": "epoch", "step": "global_step", "loss": "loss", "val_loss": "val_loss"}
    names |= {"accuracy": "accuracy", "val_accuracy": "val_accuracy", "learning_rate": "learning_rate"}
    totals = {"batches": 0.0, "samples": 0.0}
    for row in rows.rows:
        for name in totals:
            totals[name] += row[name] or 0
        known = {name: row[key] for name, key in names.items() if isinstance(row[key], (int, float))}
        if row["time"] is not None:
            yield {"time": row["time"], **known, **totals}
