"""The process behind a seat, as it looks from outside: its memory while it lives, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from liquid_telemetry.exporter.exit_status import Exit, ExitWatch
from liquid_telemetry.exporter.memory_kills import MemoryKills
from liquid_telemetry.memory import Memory, memory_of
from liquid_telemetry.spool import RunRecord

_MEMORY_EVERY = 2.0


class Process:
    """One training process.

    Args:
        clock: Monotonic seconds.
        wall: Unix seconds.

    Attributes:
        memory: Last sample, None where it is not known.
        seen_alive: Unix seconds when it was last seen to hold its seat.
        seen_gone: Unix seconds when it was first seen not to.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.memory: Memory | None = None
        self.seen_alive: float | None = None
        self.seen_gone: float | None = None
        self._clock, self._wall = clock, wall
        self._watch: ExitWatch | None = None
        self._kills: MemoryKills | None = None
        self._known_as: tuple[int, str | None] | None = None
        self._memory_due = 0.0

    def look(self, record: RunRecord, *, alive: bool) -> None:
        """Look again.

        Args:
            record: What the process says of itself.
            alive: Whether it holds its seat.
        """
        if record.final and not alive:
            self.close()
            return
        if self._watch is None or self._known_as != (record.pid, record.identity):
            self._attach(record)
        if alive:
            self.seen_alive, self.seen_gone = self._wall(), None
            self._sample(record.pid)
        else:
            self._see_gone()

    @property
    def exit(self) -> Exit | None:
        """How it ended, where that is known."""
        return self._watch.found if self._watch is not None else None

    @property
    def ended(self) -> float | None:
        """Unix seconds of its end, where that was noted to the moment."""
        return self._watch.ended if self._watch is not None else None

    @property
    def settled(self) -> bool:
        """Whether nothing more will be known of its end."""
        return self._watch is None or self._watch.settled

    @property
    def out_of_memory(self) -> bool:
        """Whether a kill of it is explained by want of memory."""
        return self._kills is not None and self._kills.explains

    def close(self) -> None:
        """Let go of it."""
        if self._watch is not None:
            self._watch.close()
            self._watch = self._known_as = None

    def _attach(self, record: RunRecord) -> None:
        self.close()
        self._known_as = record.pid, record.identity
        self._watch = ExitWatch(record.pid, record.identity)
        self._kills = MemoryKills(record.pid) if self._watch.matches else None

    def _sample(self, pid: int) -> None:
        if self._kills is None:
            return
        now = self._clock()
        self._kills.sample(now)
        if now >= self._memory_due:
            self._memory_due = now + _MEMORY_EVERY
            self.memory = memory_of(pid) or self.memory

    def _see_gone(self) -> None:
        if self.seen_gone is None:
            self.seen_gone = self._wall()
            if self._kills is not None:
                self._kills.look()
        if self._watch is not None:
            self._watch.look()
