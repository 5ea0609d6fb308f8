"""Which batches get a span, and in which trace."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPANS_PER_TRACE = 2000
_WARM_UP, _WINDOW = 16, 256
_SLOW = 6.0


class SlowBatches:
    """Tells slow batches by the median of those before them and their median deviation from it.

    A window of the last batches: neither a single outlier nor the slow first ones (compilation, caches) move it far.
    """

    def __init__(self) -> None:
        self._recent = np.empty(0)

    def among(self, seconds: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which batches took far longer than those before them; learns from all."""
        usual = self._recent if len(self._recent) >= _WARM_UP else seconds
        self._recent = np.concatenate((self._recent, seconds))[-_WINDOW:]
        if len(usual) < _WARM_UP:
            return np.zeros(len(seconds), bool)
        centre = np.median(usual)
        spread = np.median(np.abs(usual - centre))
        return np.asarray(seconds - centre > _SLOW * max(spread, 0.05 * centre))


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
        return spans <= self.left

    @property
    def left(self) -> int:
        """Ordinary spans left."""
        return max(0, self.limit * 9 // 10 - self.used)

    def take(self, wanted: int, telling: bool = False) -> int:
        """Take spans, ordinary or telling, as many of those wanted as there are left; returns how many."""
        limit = self.limit * 5 // 2 if telling else self.limit * 9 // 10
        taken = max(0, min(wanted, limit - self.used))
        self.used += taken
        return taken
