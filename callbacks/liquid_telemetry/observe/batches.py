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


class SampleCounter:
    """Counts the samples of like batches: where the first tensor lies is looked for once.

    Args:
        count: Counts those of any batch.
    """

    def __init__(self, count: BatchSize = batch_size) -> None:
        self._count = count
        self._sequence: Any = None
        """list or tuple, when the batch before was one that begins with a tensor of samples."""

    def count(self, batch: Any) -> int:
        """Samples in a batch."""
        try:
            if type(batch) is self._sequence and type(batch[0]) is Tensor and (size := batch[0].size(0)):
                return int(size)
        except IndexError:  # nothing in it, or a tensor without dimensions
            pass
        first: Any = batch[0] if type(batch) in (list, tuple) and batch else None
        begins = type(first) is Tensor and first.ndim > 0
        self._sequence = type(batch) if begins and self._count is batch_size else None
        return self._count(batch)


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
