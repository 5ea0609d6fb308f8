"""The learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Callable


def warmup_cosine(total_steps: float, warmup: float) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step: linear up, then half a cosine down to zero.

    Args:
        total_steps: optimizer steps of the run; infinite means that the rate stays up after the warm-up,
            which then takes no step.
        warmup: share of `total_steps` in which the rate rises.
    """
    if math.isinf(total_steps):
        return lambda step: 1.0
    rising = max(1, round(warmup * total_steps))
    falling = max(1, total_steps - rising)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / falling)))

    return factor
