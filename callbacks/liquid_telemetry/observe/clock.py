"""Time: one monotonic clock per run, anchored once to the wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


class RunClock:
    """Monotonic nanoseconds that can be told as Unix nanoseconds.

    The wall clock may step under NTP, and the host may sleep; durations and the order of spans must not. Reading it
    once and adding monotonic time keeps both.

    Args:
        now: Monotonic nanoseconds, if not the system's.
        wall: Unix nanoseconds, likewise.
    """

    def __init__(self, now: Clock | None = None, wall: Clock | None = None) -> None:
        self.now = now or time.perf_counter_ns
        self._wall = wall or (time.time_ns if now is None else None)
        self._offset = (wall or time.time_ns)() - self.now()

    def unix_ns(self, monotonic_ns: int) -> int:
        """Unix nanoseconds of a reading of ``now``."""
        return monotonic_ns + self._offset

    @property
    def drift_ns(self) -> int:
        """How far the wall clock has gone ahead of the run's; 0 beside a clock that is not the system's."""
        return 0 if self._wall is None else self._wall() - self.now() - self._offset
