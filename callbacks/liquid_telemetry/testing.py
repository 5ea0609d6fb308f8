"""For tests of your own: a clock that obeys, and a callback that keeps what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from liquid_telemetry.base import TelemetryCallback
from liquid_telemetry.observe.backend import Backend, Correlation
from liquid_telemetry.observe.clock import Clock
from liquid_telemetry.observe.guard import Faults, swallowed
from liquid_telemetry.observe.records import Record, RunInfo
from liquid_telemetry.observe.run import ObserverOptions

__all__ = ["Recorder", "TickingClock", "swallowed"]

R = TypeVar("R", bound=Record)


class TickingClock:
    """Monotonic nanoseconds that move by ``tick`` at each reading, and when told to.

    Args:
        tick: Nanoseconds.
    """

    def __init__(self, tick: int = 0) -> None:
        self.tick = tick
        self.nanoseconds = 0

    def __call__(self) -> int:
        """The time."""
        self.nanoseconds += self.tick
        return self.nanoseconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.nanoseconds += round(seconds * 1e9)


class Recorder(TelemetryCallback):
    """Keeps the records of its runs, instead of exporting them.

    Args:
        dir: Folder that gets a sub-folder for each run.
        loss_key: As for the other callbacks.
        accuracy_key: As for the other callbacks.
        clock: Monotonic nanoseconds.
    """

    def __init__(
        self,
        dir: str = "runs",
        loss_key: str | None = None,
        accuracy_key: str | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            True, ObserverOptions(dir=dir, loss_key=loss_key, accuracy_key=accuracy_key, clock=clock)
        )
        self.runs: list[RunInfo] = []
        self.records: list[Record] = []

    def of(self, kind: type[R]) -> list[R]:
        """The records of one kind, in order."""
        return [record for record in self.records if isinstance(record, kind)]

    def _backends(self) -> Sequence[Backend]:
        return [_Memory(self.runs, self.records)]


class _Memory:
    """The signal that stays."""

    signal = "recorder"

    def __init__(self, runs: list[RunInfo], records: list[Record]) -> None:
        self._runs = runs
        self._records = records

    def start(self, run: RunInfo, correlation: Correlation, faults: Faults) -> None:
        if run not in self._runs:
            self._runs.append(run)

    def handle(self, record: Record) -> None:
        self._records.append(record)

    def outputs(self) -> dict[str, str | None]:
        return {}

    def close(self) -> None:
        """Nothing is open."""
