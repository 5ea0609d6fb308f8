"""The one loop over the steps of a sequence: the reference that any faster path must equal.

Shapes: B batch, H hidden units, O outputs.
"""

import torch
from torch import Tensor, nn

from liquid_train.nn.sequences import Sequences


def unroll(
    cell: nn.Module, memory: nn.Module | None, sequences: Sequences, state: tuple[Tensor, ...]
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Run a cell over every step; a sequence that has ended keeps its state.

    Args:
        cell: Maps ``(input, h, timespan)`` to ``(output, new h)``.
        memory: Maps ``(input, (h, c))`` to a new ``(h, c)`` before the cell takes h; or None.
        sequences: The batch.
        state: ``(h,)``, or ``(h, c)`` with a memory, ``[B, H]`` each.

    Returns:
        The outputs of all steps, ``[B, O]`` each, and the state at each sequence's end.
    """
    outputs = []
    for input, timespan, live in sequences.steps():
        new_state = state if memory is None else memory(input, state)
        output, hidden = cell(input, new_state[0], timespan)
        new_state = (hidden, *new_state[1:])
        state = tuple(_advance(old, new, live) for old, new in zip(state, new_state, strict=True))
        outputs.append(output)
    return outputs, state


def _advance(old: Tensor, new: Tensor, live: Tensor | None) -> Tensor:
    """Take the new state where a sequence is live, in the old one's dtype (autocast computes in its own)."""
    new = new.to(old.dtype)
    return new if live is None else torch.where(live, new, old)
