"""What outlives an exporter: totals, sums, and which runs have been counted, in one file."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liquid_telemetry.exporter.ledger import Ledger
from liquid_telemetry.exporter.outcome import Outcome
from liquid_telemetry.exporter.sums import Sums
from liquid_telemetry.spool import write_atomically

OTHER_MODELS = "other"
MAX_ENTRIES = 500
MAX_VIEWS = 32
UNUSED = 86_400.0


@dataclass
class Entry:
    """What is remembered of a run.

    Args:
        model: Label under which it is counted.
        slot: Number among the concurrent runs of its model.
        started: Whether its start has been counted.
        outcome: Its end, once counted.
    """

    model: str
    slot: int | None = None
    started: bool = False
    outcome: Outcome | None = None


class Book:
    """Everything persistent. A total and its cause are written by one rename, hence counted exactly once.

    ``views`` is what each sink shows of the totals, ``born`` since when they count, in unix seconds.

    Args:
        path: The file.
        hold: Of the :class:`Ledger`.
        max_models: How many models are told apart.
    """

    def __init__(self, path: Path, hold: float, max_models: int) -> None:
        self.ledger = Ledger(hold)
        self.sums = Sums()
        self.entries: dict[str, Entry] = {}
        self.views: dict[str, dict[str, dict[str, int]]] = {}
        self.born = time.time()
        self.changed = False
        self._path = path
        self._max_models = max_models
        self._used: dict[str, float] = {}

    def _take_over(self, data: dict[str, Any], now: float) -> None:
        self.ledger.load(data["totals"], now)
        self.sums.load(data["sums"])
        self._used = data["used"]
        self.views, self.born = data.get("views", {}), data.get("born", self.born)
        for run_id, entry in data["runs"].items():
            outcome = Outcome(**entry["outcome"]) if entry["outcome"] else None
            self.entries[run_id] = Entry(entry["model"], entry["slot"], entry["started"], outcome)

    def save(self) -> None:
        """Write the file if anything has changed.

        Raises:
            OSError: It cannot be written; everything stays in memory, to be written by a later call.
        """
        if not self.changed:
            return
        data = {
            "totals": self.ledger.dump(),
            "used": self._used,
            "runs": {run_id: asdict(entry) for run_id, entry in self.entries.items()},
            "sums": self.sums.dump(),
            "views": self.views,
            "born": self.born,
        }
        write_atomically(self._path, json.dumps(data).encode())
        self.changed = False

    def entry(self, run_id: str, model: str) -> Entry:
        """Return what is remembered of a run, opening its model's series when it is new."""
        if run_id not in self.entries:
            self.entries[run_id] = Entry(self._admit(model))
            self.changed = True
        entry = self.entries[run_id]
        self.ledger.open(entry.model)
        self._used[entry.model] = time.time()
        return entry

    def remember_view(self, key: str, shown: dict[str, dict[str, int]]) -> None:
        """Note what a sink is about to show of the totals; those that were used last are kept."""
        self.views.pop(key, None)
        self.views[key] = shown
        for oldest in list(self.views)[:-MAX_VIEWS]:
            del self.views[oldest]
        self.changed = True

    def forget(self, present: set[str]) -> None:
        """Bound the entries and the sources of sums; those of runs in ``present`` stay."""
        absent = [run_id for run_id in self.entries if run_id not in present]
        for run_id in absent[: max(len(self.entries) - MAX_ENTRIES, 0)]:
            del self.entries[run_id]

    def _admit(self, model: str) -> str:
        """Return the label for a model: its name, unless the table is full of models used within a day."""
        if model in self.ledger.models or len(self.ledger.models) < self._max_models:
            return model
        oldest = min(self.ledger.models, key=lambda name: self._used.get(name, 0.0))
        if time.time() - self._used.get(oldest, 0.0) < UNUSED:
            return OTHER_MODELS
        self.ledger.close(oldest)
        self._used.pop(oldest, None)
        return model


def open_book(path: Path, hold: float, max_models: int, now: float) -> tuple[Book, Exception | None]:
    """Read the book of an earlier exporter, or begin one.

    A damaged file is moved aside, every total begins at zero, and the error is returned.
    """
    book = Book(path, hold, max_models)
    try:
        book._take_over(json.loads(path.read_bytes()), now)
    except FileNotFoundError:
        return book, None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(".damaged"))
        return Book(path, hold, max_models), error
    return book, None
