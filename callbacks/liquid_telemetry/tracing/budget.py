"""Which batches get a span, and in which trace."""

from __future__ import annotations

SPANS_PER_TRACE = 2000
_WARM_UP = 16
_SLOW = 4.0


class SlowBatches:
    """Tells slow batches by a running median and a running mean absolute deviation from it.

    Both move by a share of the deviation at each batch, so that neither a single outlier nor the slow first
    batches (compilation, caches) move them far.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._centre = 0.0
        self._spread = 0.0

    def is_slow(self, seconds: float) -> bool:
        """Whether a batch took far longer than those before it; learns from it."""
        self._seen += 1
        if self._seen == 1:
            self._centre, self._spread = seconds, seconds / 4
            return False
        deviation = seconds - self._centre
        slow = self._seen > _WARM_UP and deviation > _SLOW * max(self._spread, 0.05 * self._centre)
        rate = max(0.02, 1 / self._seen)
        bounded = max(-4 * self._spread, min(4 * self._spread, deviation))
        self._centre += rate * bounded
        self._spread += rate * (min(abs(deviation), 8 * self._spread) - self._spread)
        return slow


class Budget:
    """Spans left in a trace.

    A trace holds about ``limit`` spans, because viewers and stores suffer from larger ones. Ordinary batches stop a
    tenth before it; epochs, validations, checkpoints and telling batches (slow, skipped, not finite) go on to a
    hard limit of two and a half times as many.
    """

    def __init__(self, limit: int = SPANS_PER_TRACE) -> None:
        self.limit = limit
        self.used = 0

    def fits(self, spans: int) -> bool:
        """Whether that many ordinary spans fit."""
        return self.used + spans <= self.limit * 9 // 10

    def take(self, wanted: int, telling: bool = False) -> int:
        """Take spans, ordinary or telling, as many of those wanted as there are left; returns how many."""
        limit = self.limit * 5 // 2 if telling else self.limit * 9 // 10
        taken = max(0, min(wanted, limit - self.used))
        self.used += taken
        return taken
