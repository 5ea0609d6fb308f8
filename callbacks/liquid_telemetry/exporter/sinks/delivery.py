"""The deliveries to one sink: when, what has been received, and when to try again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from liquid_telemetry.exporter.ledger import Ledger, Receipt
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.sinks.shipment import Shipment, Sink
from liquid_telemetry.exporter.sinks.view import View

ENDS = 2
"""How many deliveries must have contained the end of a run before its series go."""

_DEADLINE = 10.0
_AT_MOST_EVERY = 1.0
_LONGEST_WAIT = 60.0

State = tuple[object, ...]


@dataclass
class Delivery:
    """One sink; times are monotonic seconds.

    Args:
        kind: Of the sink.
        key: What its view is remembered by.
        sink: The receiver.
        view: What it shows of the totals.
        hold: How long the end of a run stands before its series go.
        task: The delivery in progress.
    """

    kind: str
    key: str
    sink: Sink
    view: View
    hold: float
    task: asyncio.Task[None] | None = None
    _failures: int = 0
    _tried: float = float("-inf")
    _sent: State | None = None
    _ends: dict[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether a delivery is in progress."""
        return self.task is not None and not self.task.done()

    def due(self, state: State, now: float, every: float) -> bool:
        """Whether it is time to deliver: after a change at once, else at the interval; later after failures."""
        waited = now - self._tried
        if self._failures:
            return waited >= min(2.0**self._failures, _LONGEST_WAIT)
        return waited >= (every if state == self._sent else _AT_MOST_EVERY)

    async def send(self, shipment: Shipment, state: State, now: float) -> None:
        """Deliver, within ten seconds.

        Raises:
            Exception: Nothing was delivered; of any type, because a sink may fail in any way.
        """
        self._tried = now
        self._failures += 1
        await asyncio.wait_for(self.sink.send(shipment), _DEADLINE)
        self._failures, self._sent = 0, state

    def note(self, receipt: Receipt, ended: Iterable[Run], ledger: Ledger, now: float) -> None:
        """Note what a delivery contained."""
        self.view.deliver(receipt, now)
        for run in ended:
            if self.view.settled(ledger, run.label):
                first, count = self._ends.get(run.run_id, (now, 0))
                self._ends[run.run_id] = first, count + 1

    def forget(self, run_ids: Iterable[str]) -> None:
        """Keep in mind the ends of these runs only: others live again, or have been cleared away."""
        kept = set(run_ids)
        self._ends = {run_id: end for run_id, end in self._ends.items() if run_id in kept}

    def has_received(self, run: Run, now: float) -> bool:
        """Whether the end of a run has been delivered twice, and has stood."""
        first, count = self._ends.get(run.run_id, (now, 0))
        return count >= ENDS and now - first >= self.hold
