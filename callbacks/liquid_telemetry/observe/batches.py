"""How many samples a batch holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

_DEPTH, _WIDTH = 4, 32
BatchSize = Callable[[Any], int]


def batch_size(batch: Any) -> int:
    """Samples in a batch: the first dimension of the first tensor found in it, 0 when there is none.

    Lightning's own ``extract_batch_size`` raises on structures it does not know and walks all of them.
    """
    return _first_size(batch, _DEPTH)


def _first_size(batch: Any, depth: int) -> int:
    """Looks at a bounded number of places: a batch may hold millions of objects, or itself."""
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    if isinstance(batch, Tensor):
        return int(batch.shape[0]) if batch.ndim else 1
    if not depth:
        return 0
    return next((size for part in islice(_parts(batch), _WIDTH) if (size := _first_size(part, depth - 1))), 0)


def _parts(batch: Any) -> Iterable[Any]:
    if isinstance(batch, Mapping):
        return batch.values()
    if isinstance(batch, (tuple, list)):
        return batch
    if is_dataclass(batch):
        return (getattr(batch, field.name) for field in fields(batch))
    return vars(batch).values() if hasattr(batch, "__dict__") else ()
