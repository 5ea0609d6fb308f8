"""How long a GPU works on a phase: the time of its host is that of handing work over."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from liquid_telemetry.observe.phases import BACKWARD, FORWARD, OPTIMIZER
from liquid_telemetry.signals import PHASES

Context = AbstractContextManager[None]
TIMED = frozenset({FORWARD, BACKWARD, OPTIMIZER})
_EVERY, _LIMIT = 10, 64


class Event(Protocol):
    """A ``torch.cuda.Event`` with timing."""

    def record(self) -> None:
        """Put it on the current stream, behind the work that is there."""

    def query(self) -> bool:
        """Whether the device has come past it; never waits."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds between two events that have passed."""


@dataclass
class _Pair:
    phase: int
    begin: Event
    end: Event
    inside: list[_Pair] = field(default_factory=list)
    seconds: float = 0.0


class DeviceClock:
    """Times phases of one batch in ten by pairs of events, which are asked whether they have passed, never waited for.

    As with the time of the host, an inner phase's time is not the outer one's. While many pairs are under way no more
    batches are timed, and none once the device has failed: every call raises from then on.

    Args:
        new_event: Makes an event that can be timed.
        every: One of so many batches is timed.
    """

    def __init__(self, new_event: Callable[[], Event], every: int = _EVERY) -> None:
        self._new_event = new_event
        self._every = every
        self._batches = 0
        self._timing = self._failed = False
        self._open: list[_Pair] = []
        self._pending: deque[_Pair] = deque()
        self._spare: list[Event] = []

    def begin_batch(self) -> None:
        """A batch of training begins."""
        due = self._batches % self._every == 0
        self._timing = due and not self._failed and len(self._pending) < _LIMIT
        self._batches += 1
        self._open.clear()

    def section(self, phase: int, host: Context) -> Context:
        """A reusable context that times a phase on the device, within the one that times it on the host."""
        return _Section(self, phase, host)

    def enter(self, phase: int) -> None:
        """The work of a phase is about to be handed over."""
        if self._timing:
            with self._unless_failed():
                pair = _Pair(phase, self._event(), self._event())
                pair.begin.record()
                self._open.append(pair)

    def leave(self) -> None:
        """The work of the innermost phase has been handed over."""
        if self._timing and self._open:
            pair = self._open.pop()
            if self._open:
                self._open[-1].inside.append(pair)
            with self._unless_failed():
                pair.end.record()
                self._pending.append(pair)

    def take(self) -> Mapping[str, Sequence[float]]:
        """Seconds by phase, one number for each time it was entered, of what has passed since the last call."""
        seconds: dict[str, list[float]] = defaultdict(list)
        with self._unless_failed():
            while self._pending and self._pending[0].end.query():
                pair = self._pending.popleft()
                pair.seconds = pair.begin.elapsed_time(pair.end) / 1e3
                inside = sum(inner.seconds for inner in pair.inside)
                seconds[PHASES[pair.phase]].append(max(0.0, pair.seconds - inside))
                self._spare += (pair.begin, pair.end)
        return seconds

    def _event(self) -> Event:
        return self._spare.pop() if self._spare else self._new_event()

    @contextmanager
    def _unless_failed(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            self._failed, self._timing = True, False
            self._pending.clear()


class _Section(AbstractContextManager[None]):
    def __init__(self, clock: DeviceClock, phase: int, host: Context) -> None:
        self._clock = clock
        self._phase = phase
        self._host = host

    def __enter__(self) -> None:
        self._host.__enter__()
        self._clock.enter(self._phase)

    def __exit__(self, *error: Any) -> None:
        self._clock.leave()
        self._host.__exit__(*error)


def device_clock(device: torch.device) -> DeviceClock | None:
    """A clock for a CUDA device; None for others."""
    return DeviceClock(lambda: torch.cuda.Event(enable_timing=True)) if device.type == "cuda" else None
