"""Runs whose spool has been cleared: while the exporter lives, the page goes on showing them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.summary import summarise
from liquid_telemetry.live.summary import Summary

_KEPT = 100


@dataclass(frozen=True)
class PastRun:
    """What is kept of a run in memory: its curves and its events are in its directory."""

    summary: Summary
    folder: Path | None


class PastRuns:
    """The latest runs that are gone, by run id."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, PastRun] = OrderedDict()

    def remember(self, run: Run) -> None:
        """Note a run that is about to be forgotten; it has been summed up while its files were there."""
        if run.launching or not run.ranks:
            return
        folder = Path(run.record.run_dir) if run.record.run_dir else None
        self._runs[run.run_id] = PastRun(replace(summarise(run), live=False), folder)
        while len(self._runs) > _KEPT:
            self._runs.popitem(last=False)

    def get(self, run_id: str) -> PastRun | None:
        """One of them."""
        return self._runs.get(run_id)

    def summaries(self, without: set[str]) -> list[Summary]:
        """Those that have not come back, the latest first."""
        kept = [past.summary for run_id, past in self._runs.items() if run_id not in without]
        return sorted(kept, key=lambda summary: summary.started or 0, reverse=True)
