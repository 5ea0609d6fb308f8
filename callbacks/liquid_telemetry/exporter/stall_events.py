"""Telling of stalls and recoveries, in the run's log and in the exporter's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from liquid_telemetry.exporter import stacks
from liquid_telemetry.exporter.event_line import event_line
from liquid_telemetry.exporter.faults import Faults, log
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.stalls import Stall
from liquid_telemetry.files import append_line
from liquid_telemetry.signals import EVENTS
from liquid_telemetry.spool import RunRecord

_PATIENCE = 10.0


class Stalls:
    """Tells of each stall once, and of its end; in threads, because a stalled run's disk may hang.

    Args:
        faults: Where it is counted when a log cannot be written.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._open: dict[str, _Told] = {}

    def tell(self, runs: Mapping[str, Run]) -> None:
        """Tell what has changed.

        Args:
            runs: All runs, by run id.
        """
        for run_id in [run_id for run_id in self._open if run_id not in runs]:
            del self._open[run_id]
        for run in runs.values():
            told = self._open.get(run.run_id)
            if told is not None:
                for error in told.take_errors():
                    self._faults.report("closing", error)
            if run.stall is not None and run.live and run.outcome is None:
                if told is None or told.over:
                    self._open[run.run_id] = told = _Told(told)
                    self._begin(told, run, run.stall)
                told.stall = run.stall
            elif told is not None and not told.over and run.stall is None:
                self._end(told, run)

    def _begin(self, told: _Told, run: Run, stall: Stall) -> None:
        log.warning("run %s (%s): %s", run.run_id, run.model, stall)
        asked = {
            number: (rank.record, rank.silence.pulse, run.directory / f"{number}.stacks")
            for number, rank in run.ranks.items()
            if rank.alive and not rank.record.final and rank.silence.pulse is not None
        }
        record = run.ranks[stall.rank].record

        def work() -> None:
            found = {number: stacks.ask(*question) for number, question in asked.items()}
            own = found[stall.rank]
            _write(
                record,
                "training_stalled",
                **_place(record, stall),
                expected_seconds=round(stall.expected, 3),
                process_state=own.state,
                stacks=_joined(found),
                stacks_missing=own.missing,
            )

        told.do(work)

    def _end(self, told: _Told, run: Run) -> None:
        told.over = True
        stall = told.stall
        if stall is None or stall.rank not in run.ranks:
            return
        record = run.ranks[stall.rank].record
        log.info("run %s (%s): goes on after %.0f s", run.run_id, run.model, stall.seconds)
        told.do(lambda: _write(record, "training_recovered", **_place(record, stall)))


class _Told:
    """One stall that has been told, and the writing about it."""

    def __init__(self, before: _Told | None) -> None:
        self.stall: Stall | None = None
        self.over = False
        self._errors: list[Exception] = []
        self._thread: threading.Thread | None = before._thread if before is not None else None

    def do(self, work: Callable[[], None]) -> None:
        """Do it in a thread, after what is under way."""
        before = self._thread

        def run() -> None:
            if before is not None:
                before.join(_PATIENCE)
            try:
                work()
            except Exception as error:
                self._errors.append(error)

        self._thread = threading.Thread(target=run, name="stall", daemon=True)
        self._thread.start()

    def take_errors(self) -> list[Exception]:
        """What has gone wrong since the last call."""
        errors, self._errors = self._errors, []
        return errors


def _joined(found: Mapping[int, stacks.Stacks]) -> str | None:
    texts = {number: one.text for number, one in found.items() if one.text is not None}
    if len(found) > 1:
        texts = {number: f"Rank {number}:\n{text}" for number, text in texts.items()}
    return "\n\n".join(texts.values())[: 4 * stacks.MAX_CHARACTERS] or None


def _place(record: RunRecord, stall: Stall) -> dict[str, Any]:
    pulse = stall.pulse
    return {
        "stage": record.stage,
        "phase": pulse.phase,
        "seconds_without_progress": round(stall.seconds, 3),
        "epoch": record.epoch if pulse.epoch is None else pulse.epoch,
        "batch": pulse.batch,
        "rank": record.rank,
        "pid": record.pid,
    }


def _write(record: RunRecord, name: str, **fields: Any) -> None:
    if record.events is not None and Path(record.events).exists():
        known = {key: fields.get(key) for key in EVENTS[name].fields}
        append_line(Path(record.events), event_line(record, name, known))
