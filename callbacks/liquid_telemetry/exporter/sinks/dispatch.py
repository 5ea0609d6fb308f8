"""All sinks that somebody wants: which they are, and what each gets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from prometheus_client.metrics_core import Metric

from liquid_telemetry.exporter.book import Book
from liquid_telemetry.exporter.faults import Faults
from liquid_telemetry.exporter.ledger import Receipt
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.settings import Settings
from liquid_telemetry.exporter.sinks.delivery import Delivery, State
from liquid_telemetry.exporter.sinks.identity import identity
from liquid_telemetry.exporter.sinks.otlp import Otlp
from liquid_telemetry.exporter.sinks.pushgateway import Pushgateway
from liquid_telemetry.exporter.sinks.shipment import Shipment, Sink
from liquid_telemetry.exporter.sinks.textfile import Textfile
from liquid_telemetry.exporter.sinks.view import View
from liquid_telemetry.spool import Sink as Wanted

MAX_SINKS = 8
_PATIENCE = 5.0

_MAKE: dict[str, Callable[[Wanted, str], Sink]] = {
    "pushgateway": lambda wanted, name: Pushgateway(wanted["to"], name),
    "textfile": lambda wanted, name: Textfile(wanted["to"], name),
    "otlp": Otlp,
}


class Sinks:
    """Delivers to every sink that a run or the settings want, beside the event loop's other work.

    Args:
        settings: Of the exporter.
        book: Totals, and what each sink shows of them.
        faults: Where failures are counted.
        expose: Collects the samples with the given totals, and writes down what they say.
    """

    def __init__(
        self,
        settings: Settings,
        book: Book,
        faults: Faults,
        expose: Callable[[Receipt], Awaitable[list[Metric]]],
    ) -> None:
        self._settings, self._book, self._faults, self._expose = settings, book, faults, expose
        self._deliveries: dict[str, Delivery] = {}
        self._refused: set[str] = set()
        self._runs: list[Run] = []
        self._own = self._from_settings()

    def __bool__(self) -> bool:
        return bool(self._deliveries)

    def tick(self, runs: list[Run], now: float) -> None:
        """Begin the deliveries that are due; needs a running event loop once a sink is wanted."""
        self._runs = runs
        wanted = self._wanted(runs)
        for key, what in wanted.items():
            if key not in self._deliveries:
                self._open(key, what)
        ended = [run.run_id for run in runs if run.told]
        for key, delivery in list(self._deliveries.items()):
            delivery.forget(ended)
            if delivery.busy:
                continue
            if key not in wanted and not self._is_awaited(delivery, now):
                del self._deliveries[key]
                delivery.task = asyncio.ensure_future(self._remove(delivery))
                _leaving.add(delivery.task)
                delivery.task.add_done_callback(_leaving.discard)
            elif delivery.due(self._state(delivery, now), now, self._settings.push):
                delivery.task = asyncio.ensure_future(self._deliver(delivery, now))

    def have_received(self, run: Run, now: float) -> bool:
        """Whether every sink has received the end of a run."""
        return all(delivery.has_received(run, now) for delivery in self._deliveries.values())

    def await_totals(self, now: float) -> bool:
        """Whether a sink has not received a total that changed a short while ago."""
        return any(self._is_awaited(delivery, now) for delivery in self._deliveries.values())

    async def close(self, now: float) -> None:
        """Take back what was sent, unless a run lives or a total is still awaited: the next exporter goes on then."""
        live = any(run.live for run in self._runs)
        working = [delivery.task for delivery in self._deliveries.values() if delivery.task and delivery.busy]
        if working:
            await asyncio.wait(working, timeout=_PATIENCE)
        gone = [one for one in self._deliveries.values() if not live and not self._is_awaited(one, now)]
        self._deliveries.clear()
        await asyncio.gather(*(self._remove(delivery) for delivery in gone), *_leaving)

    def _wanted(self, runs: Iterable[Run]) -> dict[str, Wanted]:
        """Return what is wanted by its key; the first to want a sink says how."""
        found: dict[str, Wanted] = {}
        for what in [*self._own, *(what for run in runs for what in sinks_of(run))]:
            key = f"{what['kind']}-{hashlib.sha256(what['to'].encode()).hexdigest()[:16]}"
            if len(found) < MAX_SINKS or key in found:
                found.setdefault(key, what)
            elif key not in self._refused and len(self._refused) < MAX_SINKS:
                self._refused.add(key)
                self._faults.drop("sinks", f"a {what['kind']} more than {MAX_SINKS} sinks")
        return found

    def _from_settings(self) -> list[Wanted]:
        try:
            return self._settings.sinks()
        except ValueError as error:
            self._faults.report_sink("settings", error)
            return []

    def _open(self, key: str, wanted: Wanted) -> None:
        kind, hold = wanted["kind"], self._settings.sink_hold
        sink = _MAKE[kind](wanted, identity(self._settings.spool))
        view = View(hold, self._book.views.get(key, {}))
        self._deliveries[key] = Delivery(kind, key, sink, view, hold)
        self._faults.expect_from_sink(kind)

    def _state(self, delivery: Delivery, now: float) -> State:
        """What is worth a delivery before its time."""
        totals = delivery.view.show(self._book.ledger, now)
        runs = sorted((run.run_id, run.state, run.live) for run in self._runs)
        return tuple(runs), tuple(totals.items())

    async def _deliver(self, delivery: Delivery, now: float) -> None:
        state = self._state(delivery, now)
        receipt = delivery.view.show(self._book.ledger, now)
        ended = [run for run in self._runs if run.told]
        if self._book.views.get(delivery.key) != (dumped := delivery.view.dump()):
            self._book.remember_view(delivery.key, dumped)
        try:
            families = await self._expose(receipt)
            await delivery.send(self._shipment(families), state, now)
        except Exception as error:  # a network, a disk or a server of others
            self._faults.report_sink(delivery.kind, error)
        else:
            delivery.note(receipt, ended, self._book.ledger, now)

    def _shipment(self, families: list[Metric]) -> Shipment:
        starts = {(run.label, str(run.slot or "")): run.record.started for run in self._runs if run.shown}
        return Shipment(families, time.time(), self._book.born, starts)

    async def _remove(self, delivery: Delivery) -> None:
        try:
            await asyncio.wait_for(delivery.sink.remove(), _PATIENCE)
        except Exception as error:
            self._faults.report_sink(delivery.kind, error)

    def _is_awaited(self, delivery: Delivery, now: float) -> bool:
        return delivery.view.awaiting(self._book.ledger, now, self._settings.leave)


_leaving: set[asyncio.Task[None]] = set()
"""Removals in progress: the event loop itself keeps only weak references."""


def sinks_of(run: Run) -> Iterable[Wanted]:
    """Yield what a run wants, as far as it can be understood: another version may have written it."""
    wanted: Any = run.record.sinks
    for what in wanted if isinstance(wanted, list) else ():
        with contextlib.suppress(KeyError, TypeError):
            if (
                what["kind"] in _MAKE
                and isinstance(what, Mapping)
                and all(isinstance(v, str) for v in what.values())
            ):
                yield {**what, "to": what["to"]}
