"""Time: one monotonic clock per run, anchored once to the wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


class RunClock:
    """Monotonic nanoseconds that can be told as Unix nanoseconds.

    The wall clock may step under NTP; durations and the order of spans must not. Reading it once and adding
    monotonic time keeps both.

    Args:
        now: Monotonic nanoseconds.
        wall: Unix nanoseconds, read once.
    """

    def __init__(self, now: Clock = time.perf_counter_ns, wall: Clock = time.time_ns) -> None:
        self.now = now
        self._offset = wall() - now()

    def unix_ns(self, monotonic_ns: int) -> int:
        """Unix nanoseconds of a reading of ``now``."""
        return monotonic_ns + self._offset
