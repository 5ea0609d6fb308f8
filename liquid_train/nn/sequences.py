"""A batch of sequences in the one form that a layer runs over.

Shapes: B batch, T steps, C input channels, O output channels, H hidden units. A layer with ``batch_first``
reads ``[B, T, ·]``, otherwise ``[T, B, ·]``; what is said below for ``[B, T, ·]`` holds for both.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


@dataclass(frozen=True)
class Sequences:
    """A padded batch of sequences, and how to hand results back in the form that the caller used.

    Attributes:
        inputs: ``[B, T, C]``, zero in the padding.
        timespans: The time that each step spans: one number for all, or ``[B, T, 1]`` with ones in the
            padding.
        lengths: Steps of each sequence ``[B]``, or None when all have T.
        live: Where a step is not padding, ``[B, T, 1]``, or None when no step is.
        time_dim: Dimension of the steps: 1 in ``[B, T, C]``, 0 in ``[T, B, C]``.
        batched: False when the caller gave one sequence without a batch dimension.
        packed: The caller's packed sequence, if it was one.
    """

    inputs: Tensor
    timespans: Tensor | float
    lengths: Tensor | None
    live: Tensor | None
    time_dim: int
    batched: bool
    packed: PackedSequence | None

    @property
    def batch_dim(self) -> int:
        """Dimension of the sequences."""
        return 1 - self.time_dim

    @property
    def batch_size(self) -> int:
        """Number of sequences B."""
        return self.inputs.shape[self.batch_dim]

    def steps(self) -> Iterator[tuple[Tensor, Tensor | float, Tensor | None]]:
        """Yield each step's input ``[B, C]``, time span (``[B, 1]`` or a number) and ``live`` ``[B, 1]``."""
        # unbind, not an index per step: the backward of T selects would add T tensors of full size.
        spans: Iterable[Tensor | float] = repeat(self.timespans)
        if isinstance(self.timespans, Tensor) and self.timespans.dim() > 0:
            spans = self.timespans.unbind(self.time_dim)
        live: Iterable[Tensor | None] = repeat(None) if self.live is None else self.live.unbind(self.time_dim)
        return zip(self.inputs.unbind(self.time_dim), spans, live, strict=False)

    def last(self, outputs: Tensor) -> Tensor:
        """Return the output at each sequence's true end ``[B, O]``; what an empty one gets has no meaning."""
        if self.lengths is None:
            return outputs.select(self.time_dim, -1)
        steps = outputs.shape[self.time_dim]
        if steps == 0:
            return outputs.sum(self.time_dim)
        ends = (self.lengths - 1).clamp(0, steps - 1)
        rows = torch.arange(self.batch_size, device=ends.device)
        return outputs[rows, ends] if self.time_dim == 1 else outputs[ends, rows]

    def restore(self, outputs: Tensor) -> Tensor | PackedSequence:
        """Return outputs ``[B, T, O]`` in the caller's form, zero in the padding."""
        if self.packed is not None:
            return self._pack(outputs, self.packed)
        if self.live is not None:
            outputs = outputs.masked_fill(~self.live, 0.0)
        return outputs if self.batched else outputs.squeeze(self.batch_dim)

    def restore_last(self, last: Tensor) -> Tensor:
        """Return last outputs ``[B, O]`` in the caller's form, zero for an empty sequence."""
        if self.lengths is not None:
            last = last.masked_fill(self.lengths.unsqueeze(1) == 0, 0.0)
        return self.restore_state(last)

    def restore_state(self, state: Tensor) -> Tensor:
        """Return a state ``[B, H]`` in the caller's form."""
        return state if self.batched else state.squeeze(0)

    def _pack(self, outputs: Tensor, packed: PackedSequence) -> PackedSequence:
        if packed.sorted_indices is not None:
            outputs = outputs.index_select(self.batch_dim, packed.sorted_indices)
        steps = zip(outputs.unbind(self.time_dim), packed.batch_sizes.tolist(), strict=True)
        data = torch.cat([step[:live] for step, live in steps])
        # Not _replace, whose result compilers cannot hand on.
        return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
