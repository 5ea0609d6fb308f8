"""The exporter's state, without HTTP: look, count, scrape, acknowledge, leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics_core import Metric

from liquid_telemetry.exporter import merge
from liquid_telemetry.exporter.book import open_book
from liquid_telemetry.exporter.course import Courses
from liquid_telemetry.exporter.faults import Faults
from liquid_telemetry.exporter.host import Host
from liquid_telemetry.exporter.ledger import Receipt
from liquid_telemetry.exporter.past import PastRuns
from liquid_telemetry.exporter.ranks import add_ranks
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.settings import Settings
from liquid_telemetry.exporter.sinks.dispatch import Sinks
from liquid_telemetry.exporter.stall_events import Stalls
from liquid_telemetry.exporter.watch import SCRAPES, Watch
from liquid_telemetry.signals import PREFIX

_KEEP_FRESH_EVERY = 600.0
_CLOSING_PATIENCE = 5.0


@dataclass(frozen=True)
class Scrape:
    """What one scrape is given.

    Args:
        families: The samples.
        totals: The totals of jobs among them.
        ended: Runs whose end is among them.
    """

    families: list[Metric]
    totals: Receipt
    ended: list[Run]


class Exporter:
    """Everything that the exporter knows.

    Args:
        settings: Options.
        clock: Monotonic seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.clock = clock
        self.host = Host()
        self.started = self._freshened = clock()
        path = settings.spool / "counters.json"
        self.book, damage = open_book(path, settings.hold, settings.models, self.started)
        self.faults = Faults(self.book)
        if damage is not None:
            self.faults.report("counters", damage)
        self._background = futures.ThreadPoolExecutor(1, "closing")
        self._courses = Courses(self.host)
        self.past = PastRuns()
        self._watch = Watch(
            settings, self.book, self.faults, self._background, self._courses, self.past.remember
        )
        self._stalls = Stalls(self.faults)
        self._scraped = self._sinks_used = False
        self.sinks = Sinks(settings, self.book, self.faults, self._expose_to_sink)

    @property
    def runs(self) -> list[Run]:
        """Every run in the spool, the latest first."""
        runs = [run for run in self._watch.runs.values() if not run.launching]
        return sorted(runs, key=lambda run: run.record.started, reverse=True)

    @property
    def trains(self) -> bool:
        """Whether a run lives."""
        return any(run.live for run in self.runs)

    def knows(self, run_id: str) -> bool:
        """Whether a run has been seen, that of a launcher included."""
        return run_id in self._watch.runs

    def look(self, *, measure: bool = False) -> None:
        """Look at the spool; write down what has changed; clear away what is done.

        Args:
            measure: Whether to look at the metrics of every run now.
        """
        now = self.clock()
        self._watch.look(now, measure=measure)
        self._stalls.tell(self._watch.runs)
        if self.book.ledger.reveal(now):
            self.book.changed = True
        self._credit_sinks(now)
        if self._save():
            self._watch.clear(now)
        if now - self._freshened >= _KEEP_FRESH_EVERY:
            self._freshened = now
            self._watch.keep_fresh()
        self.sinks.tick(self.runs, now)

    async def scrape(self) -> Scrape:
        """Collect what a scrape sees; what it sees of totals and sums is on disk."""
        await self.sample_host()
        self.look(measure=True)
        totals = self.book.ledger.shown()
        return Scrape(self._expose(totals), totals, [run for run in self.runs if run.told])

    def _expose(self, totals: Receipt) -> list[Metric]:
        runs, exposition = self.runs, merge.Exposition()
        merge.add_totals(exposition, totals)
        merge.add_runs(exposition, runs)
        add_ranks(exposition, runs)
        if self.host.sample is not None:
            merge.add_host(exposition, self.host.sample)
        merge.add_gauges(exposition, runs)
        for series, value in self.book.sums.totals().items():
            exposition.put_series(series, value)
        return exposition.collect()

    async def _expose_to_sink(self, totals: Receipt) -> list[Metric]:
        await self.sample_host()
        self.look(measure=True)
        return self._expose(totals)

    def acknowledge(self, scrape: Scrape) -> None:
        """Note that a scrape has been received; of the end of a run it counts after the sinks have received it."""
        self._scraped = True
        self.book.ledger.acknowledge(scrape.totals)
        now = self.clock()
        for run in scrape.ended:
            settled = run.told and self.book.ledger.settled(run.label)
            if settled and self.sinks.have_received(run, now):
                run.scrapes += 1

    def _credit_sinks(self, now: float) -> None:
        """Let deliveries count as scrapes where there are no scrapes."""
        self._sinks_used = self._sinks_used or bool(self.sinks)
        if self.sinks and not self._scraped:
            for run in self._watch.runs.values():
                if run.told and self.sinks.have_received(run, now):
                    run.scrapes = SCRAPES

    async def sample_host(self, interval: float = 3.0) -> None:
        """Sample the host, unless that was done within an interval in seconds."""
        live = [run for run in self.runs if run.live]
        pids = {rank.record.pid for run in live for rank in run.ranks.values() if rank.alive}
        folders = [Path(run.record.run_dir) for run in live if run.record.run_dir]
        disks = [self.settings.spool, *[path for path in folders if path.is_dir()][:1]]
        try:
            await self.host.refresh(self.clock(), pids, disks, interval)
        except Exception as error:  # psutil, or a disk that has gone
            self.faults.report("host", error)

    def count_call(self, endpoint: str, method: str, status: int) -> None:
        """Count a request to an endpoint; the caller bounds the values."""
        labels = (("endpoint", endpoint), ("method", method), ("status", str(status)))
        self.book.sums.add((f"{PREFIX}api_calls_total", labels))
        self.book.changed = True

    def is_idle(self) -> bool:
        """Whether nobody is left to serve: no run lives, and every end has been scraped or has waited."""
        waiting = self._watch.behind or any(not run.retired for run in self._watch.runs.values())
        now = self.clock()
        sinks_only = self._sinks_used and not self._scraped
        unscraped = not sinks_only and self.book.ledger.awaiting(now, self.settings.leave)
        return not waiting and not unscraped and not self.sinks.await_totals(now)

    def close(self) -> None:
        """Write down everything, and wait a moment for what is being written to the logs of the dead."""
        futures.wait([run.closing for run in self._watch.runs.values() if run.closing], _CLOSING_PATIENCE)
        self._background.shutdown(wait=False, cancel_futures=True)
        self._courses.close()
        self._save()

    def _save(self) -> bool:
        live = [f"{run.run_id}/{rank}" for run in self._watch.runs.values() for rank in run.ranks]
        self.book.sums.fold(live)
        try:
            self.book.save()
        except OSError as error:
            self.faults.report("spool", error)
            return False
        return True
