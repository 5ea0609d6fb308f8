"""The data of the page, from the runs of an exporter."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from liquid_telemetry.exporter import health
from liquid_telemetry.exporter.core import Exporter
from liquid_telemetry.exporter.past import PastRun
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.summary import summarise
from liquid_telemetry.live.answer import Query, detail, overview
from liquid_telemetry.live.archive import ArchivedRun
from liquid_telemetry.live.log import Log
from liquid_telemetry.live.points import Points

_OPEN_AT_ONCE = 16
_PATIENCE = 2.0


class Views:
    """Answers what the page asks; files are read beside the event loop, and a disk that hangs is not waited for."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._readers: OrderedDict[str, Log | ArchivedRun] = OrderedDict()
        self._reading: dict[str, asyncio.Future[None]] = {}

    async def overview(self) -> dict[str, Any]:
        """Every run in a few words, those that live first."""
        exporter = self._exporter
        await exporter.sample_host()
        exporter.look(measure=True)
        runs = [summarise(run) for run in exporter.runs]
        runs.sort(key=lambda run: not run.live)
        past = exporter.past.summaries({run.run_id for run in runs})
        host: Mapping[str, Any] = health.resources(exporter.host.sample)
        return overview([*runs, *past], time.time(), host, "exporter")

    async def detail(self, run_id: str, query: Query) -> dict[str, Any] | None:
        """One run; None where there is none of that id."""
        self._exporter.look(measure=True)
        run = next((run for run in self._exporter.runs if run.run_id == run_id), None)
        if run is not None:
            return await self._present(run, query)
        past = self._exporter.past.get(run_id)
        return None if past is None else await self._past(past, query)

    async def _present(self, run: Run, query: Query) -> dict[str, Any]:
        points = run.history.points if run.history is not None else Points()
        path = run.record.events
        log = await self._read(run.run_id, lambda: Log(Path(path))) if path else None
        return detail(summarise(run), points, log if isinstance(log, Log) else None, query)

    async def _past(self, past: PastRun, query: Query) -> dict[str, Any]:
        folder = past.folder
        if folder is None:
            return detail(past.summary, Points(), None, query)
        read = await self._read(f"past {past.summary.run_id}", lambda: ArchivedRun(folder))
        points = read.points if isinstance(read, ArchivedRun) else Points()
        return detail(past.summary, points, read.log if isinstance(read, ArchivedRun) else None, query)

    async def _read(self, name: str, make: Callable[[], Log | ArchivedRun]) -> Log | ArchivedRun:
        """A reader that is up to date, or, where the disk is slow, as it was."""
        if name not in self._readers:
            self._readers[name] = make()
            self._make_room()
        self._readers.move_to_end(name)
        reader = self._readers[name]
        task = self._reading.get(name)
        if task is None:
            task = self._reading[name] = asyncio.ensure_future(asyncio.to_thread(reader.refresh))
        await asyncio.wait({task}, timeout=_PATIENCE)
        if task.done() and self._reading.get(name) is task:
            del self._reading[name]
            error = task.exception()
            if isinstance(error, OSError):
                self._exporter.faults.report("page", error)
            elif error is not None:
                raise error
        return reader

    def _make_room(self) -> None:
        for name in [name for name in self._readers if name not in self._reading][:-_OPEN_AT_ONCE]:
            reader = self._readers.pop(name)
            (reader if isinstance(reader, Log) else reader.log).close()
