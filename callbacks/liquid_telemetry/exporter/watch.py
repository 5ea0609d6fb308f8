"""The job watch: finds runs, sees them end, counts each once, and clears them away."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from liquid_telemetry.exporter import slots
from liquid_telemetry.exporter.book import Book
from liquid_telemetry.exporter.closing import Story, finish_story
from liquid_telemetry.exporter.course import Courses
from liquid_telemetry.exporter.faults import Faults, log
from liquid_telemetry.exporter.merge import cumulative
from liquid_telemetry.exporter.outcome import Outcome, awaits_parent, decide, how
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.settings import Settings
from liquid_telemetry.exporter.snapshots import SnapshotError
from liquid_telemetry.spool import is_locked

_TRASH = ".ended-"
_MEASURE_EVERY = 2.0
_YOUNG = 60.0  # seconds for which a run is measured more often, because somebody has just started it
_ADOPT_AT_ONCE = 20
_CLEAR_AT_ONCE = 50
_PARENT = 5  # times the grace of ranks
SCRAPES = 2
"""How many scrapes must have received the end of a run before its series go."""


class Watch:
    """Runs in the spool, by run id; ``behind`` says that there are more."""

    def __init__(
        self,
        settings: Settings,
        book: Book,
        faults: Faults,
        background: Executor,
        courses: Courses,
        gone: Callable[[Run], None],
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.behind = False
        self._adopted = float("-inf")
        self._settings = settings
        self._directory = settings.spool / "runs"
        self._book = book
        self._faults = faults
        self._background = background
        self._courses = courses
        self._gone = gone

    def look(self, now: float, *, measure: bool) -> None:
        """See what has changed, and count it.

        Args:
            now: Monotonic seconds.
            measure: Whether to look at the metrics of every run, not only of those where it is time.
        """
        self._find(now)
        for run in self.runs.values():
            for error in run.refresh(now):
                self._faults.report("record", error)
            if measure or run.ended_at == now or now - run.measured >= _measure_every(run):
                self._measure(run, now)
        self.runs = {run_id: run for run_id, run in self.runs.items() if run.ranks}
        new = [run for run in self.runs.values() if run.slot is None and not run.launching]
        for run in sorted(self.runs.values(), key=lambda run: run.record.started):
            self._judge(run, now)
        for run in sorted(new, key=self._seniority):
            self._seat(run)

    def clear(self, now: float) -> None:
        """Remove runs whose end is known, has been scraped, and is on disk; a few at once."""
        done = [run for run in self.runs.values() if self._is_done(run, now)]
        for run in done[:_CLEAR_AT_ONCE]:
            run.retired = True
            self._check_closing(run)
            try:
                self._remove(run.directory)
            except OSError as error:
                self._faults.report("spool", error)
            else:
                del self.runs[run.run_id]
                self._gone(run)
        self._book.forget(set(self.runs))

    def keep_fresh(self) -> None:
        """Touch the locks: systems that clear old temporary files would take a running job for dead."""
        for run in self.runs.values():
            for rank in run.ranks.values():
                if rank.alive and rank.lock.exists():
                    os.utime(rank.lock)

    def _find(self, now: float) -> None:
        if not self._directory.is_dir():
            return
        unknown: list[Path] = []
        for path in self._directory.iterdir():
            if path.name.startswith(_TRASH):
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in self.runs:
                unknown.append(path)
        if (
            not self.behind or now - self._adopted >= self._settings.poll
        ):  # scrapes in between are not held up
            self._adopt(unknown)
            self._adopted = now
        for run_id in [run_id for run_id, run in self.runs.items() if not run.directory.is_dir()]:
            del self.runs[run_id]

    def _adopt(self, unknown: list[Path]) -> None:
        """Take up a few runs at once, those written to last first: a thousand stale ones hold up nothing."""
        room = _ADOPT_AT_ONCE
        for path in sorted(unknown, key=_last_written, reverse=True):
            if any(path.glob("*.json")):
                if room == 0:
                    break
                room -= 1
                self.runs[path.name] = Run(path, self._settings.stall)
            elif _is_abandoned(path, self._settings.leave):
                shutil.rmtree(path, ignore_errors=True)
        self.behind = room == 0

    def _seniority(self, run: Run) -> tuple[bool, float]:
        return self._book.entries[run.run_id].slot is None, run.record.started

    def _measure(self, run: Run, now: float) -> None:
        for found in run.measure(now):
            if isinstance(found, SnapshotError):
                self._faults.report("snapshot", found)
                continue
            refused = self._book.sums.refused
            self._book.sums.observe(f"{run.run_id}/{found.number}", cumulative(found.snapshot.families))
            self._book.changed = True
            if self._book.sums.refused > refused:
                self._faults.drop("series", f"run {run.run_id} publishes too many series")
        for error in self._courses.follow(run):
            self._faults.report("history", error)

    def _judge(self, run: Run, now: float) -> None:
        known = run.run_id in self._book.entries
        entry = self._book.entry(run.run_id, run.model)
        run.label = entry.model
        if not known and run.refused:
            self._faults.drop(
                "models", f"{run.model!r} is one model too many; its jobs count as {run.label!r}"
            )
        if run.job:
            self._count(run, now)
        if run.outcome is not None and run.outcome.died is not None and run.closing is None:
            run.closing = self._background.submit(finish_story, _story(run, run.outcome))

    def _count(self, run: Run, now: float) -> None:
        entry = self._book.entries[run.run_id]
        if entry.outcome is None:
            waited = self._has_waited(run, now)
            entry.outcome = decide(run.ranks.values(), waited=waited, stalled=run.stalled)
            if entry.outcome is not None:
                self._add(run, (entry.outcome.kind, entry.outcome.reason), now)
                log.info("run %s (%s): %s", run.run_id, run.model, entry.outcome)
        run.outcome = entry.outcome
        trains = any(rank.record.status == "running" for rank in run.ranks.values())
        if not entry.started and (trains or run.outcome is not None):
            entry.started = True
            self._add(run, ("started", ""), now)

    def _add(self, run: Run, what: tuple[str, str], now: float) -> None:
        self._book.changed = True
        if run.is_home:
            self._book.ledger.add(run.label, what, now)

    def _has_waited(self, run: Run, now: float) -> bool:
        """Whether what others may say of a death has been waited for; a parent first ends all it has spawned."""
        if run.died_at is None:
            return False
        spawned = awaits_parent([rank for rank in run.ranks.values() if rank.died])
        return now - run.died_at >= self._settings.grace * (_PARENT if spawned else 1)

    def _seat(self, run: Run) -> None:
        entry = self._book.entries[run.run_id]
        others = [other for other in self.runs.values() if other is not run]
        if not run.live and any(_follows(other, run) for other in others):
            run.slot, run.retired = 0, True
            return
        for replaced in slots.assign(run, others, entry.slot):
            replaced.retired = True
        if entry.slot != run.slot:
            entry.slot = run.slot
            self._book.changed = True

    def _is_done(self, run: Run, now: float) -> bool:
        if run.ended_at is None:
            return False
        if run.launching:
            return True
        waited = now - run.ended_at >= self._settings.leave
        closed = run.closing is None or run.closing.done()
        return waited or (closed and run.told and (run.retired or run.scrapes >= SCRAPES))

    def _check_closing(self, run: Run) -> None:
        if run.closing is not None and run.closing.done():
            error = run.closing.exception()
            if isinstance(error, Exception):
                self._faults.report("closing", error)

    def _remove(self, directory: Path) -> None:
        """Rename first: a process that still writes there finds nothing and takes a new seat."""
        trash = directory.with_name(f"{_TRASH}{directory.name}-{time.time_ns()}")
        directory.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _measure_every(run: Run) -> float:
    return _MEASURE_EVERY / 2 if time.time() - run.record.started < _YOUNG else _MEASURE_EVERY


def _follows(later: Run, run: Run) -> bool:
    """Whether a later run of the model is seated: one that is found when it is long over has nothing to show."""
    seated = later.slot is not None and later.label == run.label
    return seated and later.record.started > run.record.started


def _last_written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_abandoned(directory: Path, age: float) -> bool:
    """Whether this is what a process left that was killed before it had written its record."""
    if any(is_locked(lock) for lock in directory.glob("*.lock")):
        return False
    return directory.is_dir() and time.time() - directory.stat().st_mtime > age


_LAST_WORDS = {
    "epoch": "training_epoch",
    "global_step": "training_global_step",
    "loss": "training_loss",
    "last_progress": "training_last_progress_timestamp_seconds",
}


def _story(run: Run, outcome: Outcome) -> Story:
    """Return what is known of a dead run, for its log."""
    dead = run.ranks.get(outcome.died if outcome.died is not None else -1, run.lead)
    last = {name: run.lead.snapshot.value(metric) for name, metric in _LAST_WORDS.items()}
    record = dead.record if dead.record.events else replace(run.record, reason=dead.record.reason)
    return Story(record, outcome, how(dead), dead.process.exit, dead.process.memory, last, dead.silence.pulse)
