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

    __slots__ = ("current", "last", "nanoseconds", "now", "optimizer_steps", "outer", "started")

    def __init__(self, now: Clock) -> None:
        self.now = now
        self.started = self.last = now()
        self.current = OTHER
        self.outer: list[int] = []
        self.nanoseconds = [0] * len(PHASES)
        self.optimizer_steps = 0

    def enter(self, phase: int) -> None:
        """Begin a phase inside the current one."""
        Section(self, phase).__enter__()

    def leave(self) -> None:
        """End the current phase and go back to the one around it."""
        Section(self, OTHER).__exit__(None, None, None)

    def snapshot(self, now: int) -> tuple[int, ...]:
        """Nanoseconds of each phase up to ``now``, in the order of ``PHASES``."""
        self.nanoseconds[self.current] += now - self.last
        self.last = now
        return tuple(self.nanoseconds)


class Section:
    """A reusable context that spends its body's time on one phase.

    It works on the clock's own fields: ten of these calls are made for each batch.
    """

    __slots__ = ("_clock", "_phase")

    def __init__(self, clock: PhaseClock, phase: int) -> None:
        self._clock = clock
        self._phase = phase

    def __enter__(self) -> None:
        clock = self._clock
        now, current = clock.now(), clock.current
        clock.nanoseconds[current] += now - clock.last
        clock.last = now
        clock.outer.append(current)
        if current != VALIDATION:
            clock.current = self._phase

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        clock = self._clock
        now = clock.now()
        clock.nanoseconds[clock.current] += now - clock.last
        clock.last = now
        clock.current = clock.outer.pop() if clock.outer else OTHER


class OptimizerSection(Section):
    """A section that also counts optimizer steps."""

    __slots__ = ()

    def __enter__(self) -> None:
        self._clock.optimizer_steps += 1
        super().__enter__()
