"""Whether a run has stalled: no sign of progress for much longer than its phase has ever been silent.

Judged outside the trainer, so that a process that is frozen is seen too, and without a clock that may jump: silence is
counted here, only while this process looks. So neither a suspended host nor a busy exporter makes a stall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from liquid_telemetry.spool import Pulse, read_pulse

PATIENCE = 60.0
"""Least silence, in seconds, that can be a stall."""
_FACTORS: dict[str, tuple[float, float]] = {
    "start-up": (60, 60),
    "first batch": (30, 30),
    "batch": (1, 1),
    "end": (30, 30),
}
"""Times the patience, when a phase is first entered and later; a start and an end cannot be learned."""
_OTHERS = 15, 5
_TIMES_USUAL = 5.0
_TIMES_LONGEST = 1.2
_PULSE_EVERY = 1.0  # seconds between the pulses of fast batches
_LONGEST_LOOK = 5.0  # seconds of silence that one look can add


@dataclass(frozen=True)
class Stall:
    """A silence that is too long.

    Args:
        rank: Of whom this tells: the lowest that is silent.
        pulse: Its last sign of progress.
        seconds: Since then.
        expected: What was to be expected at most, in seconds.
    """

    rank: int
    pulse: Pulse
    seconds: float
    expected: float

    def __str__(self) -> str:
        place = [("epoch", self.pulse.epoch), ("batch", self.pulse.batch)]
        after = ", ".join(f"{name} {value}" for name, value in place if value is not None)
        where = f" after {after}" if after else ""
        return (
            f"stalled: no progress for {self.seconds:.0f} s in the phase {self.pulse.phase}{where}; "
            f"at most {self.expected:.0f} s were to be expected"
        )


class Silence:
    """How long one rank has given no sign of progress."""

    def __init__(self, path: Path) -> None:
        self.pulse: Pulse | None = None
        self.seconds = 0.0
        self._path = path
        self._looked: float | None = None

    def look(self, now: float, *, alive: bool = True) -> None:
        """Look for a new pulse; without one the silence of a living process has grown.

        Args:
            now: Monotonic seconds.
            alive: Whether the process lives.
        """
        pulse = read_pulse(self._path)
        before, self._looked = self._looked, now
        if pulse is not None and pulse != self.pulse:
            self.pulse, self.seconds = pulse, 0.0
        elif alive and before is not None:
            self.seconds += min(max(now - before, 0.0), _LONGEST_LOOK)

    def stall(self, rank: int, patience: float) -> Stall | None:
        """Return the stall that this silence is, or None."""
        if self.pulse is None:
            return None
        expected = expectation(self.pulse, patience)
        return Stall(rank, self.pulse, self.seconds, expected) if self.seconds > expected else None


def expectation(pulse: Pulse, patience: float) -> float:
    """Return how long the phase may be silent, in seconds.

    The longest silence may have been a mishap, or a stall that ended: it is allowed again, but only what was seen twice
    is taken for usual.
    """
    first, later = _FACTORS.get(pulse.phase, _OTHERS)
    least = patience * (later if pulse.seen else first)
    usual = pulse.second if pulse.seen > 1 else pulse.longest
    return _PULSE_EVERY + max(least, _TIMES_USUAL * usual, _TIMES_LONGEST * pulse.longest)


def find_stall(silences: Sequence[tuple[int, Silence]], patience: float) -> Stall | None:
    """Return the stall of a run, or None: a rank may wait for another, so all must be silent for too long.

    Args:
        silences: Of the ranks that live and have not ended, by rank.
        patience: Least silence that can be a stall.
    """
    heard = [(rank, silence) for rank, silence in silences if silence.pulse is not None]
    stalls = [silence.stall(rank, patience) for rank, silence in heard]
    if not stalls or None in stalls:
        return None
    return stalls[0]
