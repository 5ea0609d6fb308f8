"""Where the time goes: every nanosecond belongs to exactly one phase."""

from __future__ import annotations

from types import TracebackType

from liquid_telemetry.observe.clock import Clock
from liquid_telemetry.signals import PHASES

DATA, TRANSFER, FORWARD, BACKWARD, OPTIMIZER, VALIDATION, CHECKPOINT, OTHER = range(len(PHASES))


class PhaseClock:
    """Attributes time to phases that nest: an inner phase stops the clock of the outer one.

    The nanoseconds of all phases add up to the time since the start, whatever is entered or left. Inside
    validation everything is validation: its batches are moved to the device by the same actions as training's.
    """

    __slots__ = ("_current", "_last", "_now", "_outer", "nanoseconds", "optimizer_steps", "started")

    def __init__(self, now: Clock) -> None:
        self._now = now
        self.started = self._last = now()
        self._current = OTHER
        self._outer: list[int] = []
        self.nanoseconds = [0] * len(PHASES)
        self.optimizer_steps = 0

    def enter(self, phase: int) -> None:
        """Begin a phase inside the current one."""
        now = self._now()
        current = self._current
        self.nanoseconds[current] += now - self._last
        self._last = now
        self._outer.append(current)
        if current != VALIDATION:
            self._current = phase

    def leave(self) -> None:
        """End the current phase and go back to the one around it."""
        now = self._now()
        self.nanoseconds[self._current] += now - self._last
        self._last = now
        self._current = self._outer.pop() if self._outer else OTHER

    def snapshot(self, now: int) -> tuple[int, ...]:
        """Nanoseconds of each phase up to ``now``, in the order of ``PHASES``."""
        self.nanoseconds[self._current] += now - self._last
        self._last = now
        return tuple(self.nanoseconds)


class Section:
    """A reusable context that spends its body's time on one phase."""

    __slots__ = ("_clock", "_phase")

    def __init__(self, clock: PhaseClock, phase: int) -> None:
        self._clock = clock
        self._phase = phase

    def __enter__(self) -> None:
        self._clock.enter(self._phase)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clock.leave()


class OptimizerSection(Section):
    """A section that also counts optimizer steps."""

    __slots__ = ()

    def __enter__(self) -> None:
        self._clock.optimizer_steps += 1
        self._clock.enter(self._phase)
