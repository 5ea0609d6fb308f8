"""Batches as columns: hooks store plain readings in rows, drained in bulk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

BatchSize = Callable[[Any], int]


def batch_size(batch: Any) -> int:
    """Samples in a batch: the first dimension of the first tensor found in it, 0 when there is none.

    Lightning's own ``extract_batch_size`` raises on structures it does not know and walks all of them.
    """
    if isinstance(batch, Tensor):
        return int(batch.shape[0]) if batch.ndim else 1
    if isinstance(batch, dict):
        batch = batch.values()
    elif not isinstance(batch, (tuple, list)):
        batch = vars(batch).values() if hasattr(batch, "__dict__") else ()
    return next((size for size in map(batch_size, batch) if size), 0)
