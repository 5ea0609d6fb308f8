"""Whether times have changed: an interval of the ratio of their medians, by resampling whole blocks.

Calls within a block resemble one another, so a block counts as one observation: its median. Method: percentile
bootstrap of independent samples, Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A ratio and where it lies."""

    ratio: float
    low: float
    high: float

    def is_above(self, limit: float) -> bool:
        """Whether all of it is."""
        return self.low > limit

    def is_below(self, limit: float) -> bool:
        """Whether all of it is."""
        return self.high < limit


def ratio_of_medians(now: Sequence[float], before: Sequence[float], confidence: float, seed: int) -> Interval:
    """Return the ratio of the median of `now` to that of `before`, and its interval.

    Args:
        now: One positive number for each block.
        before: Likewise, of the baseline.
        confidence: Share of such intervals that hold the true ratio.
        seed: Of the resampling.
    """
    random = np.random.default_rng(seed)
    ratios = _resampled(now, random) / _resampled(before, random)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Interval(float(np.median(now) / np.median(before)), float(low), float(high))


def _resampled(
    values: Sequence[float], random: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    given = np.asarray(values, dtype=np.float64)
    medians: np.ndarray[tuple[int], np.dtype[np.float64]] = np.median(
        given[random.integers(0, len(given), (RESAMPLES, len(given)))], axis=1
    )
    return medians


def verdict(times: Interval, relative: Interval, allowed: float) -> str:
    """Judge a case.

    Args:
        times: Of the times themselves.
        relative: Of the times in units of the reference work beside them: what slows the machine down leaves it.
        allowed: Ratio that is no regression yet, above 1.

    Returns:
        `slower` only when both intervals are wholly above what is allowed, `faster` when both are wholly below its
        inverse, `same` when the times' interval is within, else `unclear`.
    """
    if times.is_above(allowed) and relative.is_above(allowed):
        return "slower"
    if times.is_below(1 / allowed) and relative.is_below(1 / allowed):
        return "faster"
    if times.low >= 1 / allowed and times.high <= allowed:
        return "same"
    return "unclear"
