"""From the arguments of a layer's ``forward`` to ``Sequences`` and states, with every check on the way.

Shapes: B batch, T steps, C input channels, H hidden units. A layer with ``batch_first`` reads ``[B, T,
·]``, otherwise ``[T, B, ·]``; what is said below for ``[B, T, ·]`` holds for both.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from liquid_train.nn._checks import check_channels
from liquid_train.nn.sequences import Sequences

PaddedTimespans = Tensor | np.ndarray[Any, Any] | list[Any] | tuple[Any, ...] | float | None
Timespans = PaddedTimespans | PackedSequence
Lengths = Tensor | Sequence[int] | int | None
Hidden = Tensor | tuple[Tensor, Tensor]


def arrange(
    input: Tensor | PackedSequence, timespans: Timespans, lengths: Lengths, input_size: int, batch_first: bool
) -> Sequences:
    """Bring a batch of sequences to the one form that a layer runs over.

    Raises:
        ValueError: If a shape does not fit that of the input, or a length is not between 0 and T.
    """
    packed = None
    if isinstance(input, PackedSequence):
        packed = input
        input, timespans, lengths = _unpack(packed, timespans, lengths, batch_first)
    elif isinstance(timespans, PackedSequence):
        raise ValueError("timespans is a PackedSequence but input is a Tensor: pack both or none")
    if input.dim() not in (2, 3):
        raise ValueError(f"input has {input.dim()} dimensions: give 3 for a batch, or 2 for one sequence")
    check_channels(input, input_size)
    if input.is_complex():
        raise ValueError(f"input has dtype {input.dtype}: give real numbers")
    if not input.is_floating_point():
        input = input.to(torch.get_default_dtype())

    batched, time_dim = input.dim() == 3, int(batch_first)
    spans = _time_spans(timespans, input)
    if not batched:
        input = input.unsqueeze(1 - time_dim)
        spans = spans.unsqueeze(1 - time_dim) if isinstance(spans, Tensor) and spans.dim() > 0 else spans
    counts = _step_counts(lengths, input, time_dim, batched)
    live = None
    if counts is not None:
        live = _live(counts, input.shape[time_dim], time_dim)
        input, spans = _clean_padding(input, spans, live)
    return Sequences(input, spans, counts, live, time_dim, batched, packed)


def initial_state(
    hx: Hidden | None, sequences: Sequences, state_size: int, mixed: bool
) -> tuple[Tensor, ...]:
    """Return the state before the first step: ``(h,)``, or ``(h, c)`` with a memory cell, ``[B, H]`` each.

    Raises:
        ValueError: If ``hx`` is not a tensor (with a memory cell: two) of the batch's shape.
    """
    batch = sequences.batch_size
    if hx is None:
        zeros = sequences.inputs.new_zeros(batch, state_size, dtype=_state_dtype(sequences.inputs))
        return (zeros, zeros) if mixed else (zeros,)
    if mixed and (isinstance(hx, Tensor) or len(hx) != 2):
        raise ValueError(
            "hx is not a pair but mixed_memory=True: give (h, c), the hidden state and the cell state"
        )
    if not mixed and not isinstance(hx, Tensor):
        raise ValueError(
            f"hx is a {type(hx).__name__} but mixed_memory=False: give the hidden state as one Tensor"
        )
    states: tuple[Tensor, ...] = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    expected = (batch, state_size) if sequences.batched else (state_size,)
    for state in states:
        if state.shape != expected:
            raise ValueError(f"hx has shape {tuple(state.shape)}: this input needs {expected}")
    return states if sequences.batched else tuple(state.unsqueeze(0) for state in states)


def _unpack(
    packed: PackedSequence, timespans: Timespans, lengths: Lengths, batch_first: bool
) -> tuple[Tensor, PaddedTimespans, Tensor]:
    if lengths is not None:
        raise ValueError("lengths is given with a PackedSequence, which has its own: leave lengths out")
    if packed.data.dim() != 2:
        raise ValueError(
            f"input packs steps of shape {tuple(packed.data.shape[1:])}: each must have shape (C,)"
        )
    padded, counts = pad_packed_sequence(packed, batch_first)
    if isinstance(timespans, PackedSequence):
        if not torch.equal(timespans.batch_sizes, packed.batch_sizes):
            raise ValueError(
                "timespans is packed with other lengths than input: pack both with the same lengths"
            )
        timespans, _ = pad_packed_sequence(timespans, batch_first)
    return padded, timespans, counts


def _time_spans(timespans: PaddedTimespans, input: Tensor) -> Tensor | float:
    """Return a number, or a span for each step with a last dimension of one, in the input's dtype."""
    if timespans is None:
        return 1.0
    if not isinstance(timespans, Tensor):
        if not isinstance(timespans, list | tuple | np.ndarray):
            return float(timespans)
        timespans = torch.as_tensor(timespans, device=input.device)
    shape = tuple(input.shape[:-1])
    # Not by "in": under torch.compile it takes a size that may vary and one that may not for different.
    if timespans.dim() > 0 and timespans.shape != shape and timespans.shape != (*shape, 1):
        raise ValueError(
            f"timespans has shape {tuple(timespans.shape)}: "
            f"give a number, or one entry per step with shape {shape} or {(*shape, 1)}"
        )
    timespans = timespans.to(_state_dtype(input))
    return timespans.unsqueeze(-1) if timespans.dim() == len(shape) else timespans


def _state_dtype(input: Tensor) -> torch.dtype:
    """Return the dtype of states and spans: the input's, or single precision where autocast has lowered that."""
    lowered = input.dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if lowered and torch.is_autocast_enabled(input.device.type) else input.dtype


def _step_counts(lengths: Lengths, input: Tensor, time_dim: int, batched: bool) -> Tensor | None:
    """Return the number of steps of each sequence ``[B]`` on the input's device, or None when all have T."""
    steps, batch = input.shape[time_dim], input.shape[1 - time_dim]
    if lengths is None:
        return None if steps > 0 else torch.zeros(batch, dtype=torch.long, device=input.device)
    counts = torch.as_tensor(lengths)
    if counts.dim() == 0 and not batched:
        counts = counts.unsqueeze(0)
    if counts.shape != (batch,) or counts.dtype == torch.bool or counts.is_floating_point():
        raise ValueError(
            f"lengths has shape {tuple(counts.shape)} and dtype {counts.dtype}: "
            f"give one whole number per sequence, shape {(batch,)}"
        )
    counts = counts.long()  # some kinds cannot be compared, and one of them is a mask where it indexes
    # On an accelerator the check would make the device wait; while tracing, values are not known.
    if counts.device.type == "cpu" and not torch.compiler.is_compiling():
        outside = counts[(counts < 0) | (counts > steps)].tolist()
        if outside:
            raise ValueError(
                f"lengths contains {outside[0]}: each must be between 0 and the {steps} steps of input"
            )
    return counts.to(input.device)


def _live(counts: Tensor, steps: int, time_dim: int) -> Tensor:
    """Return where a step belongs to its sequence, ``[B, T, 1]``."""
    index = torch.arange(steps, device=counts.device).unsqueeze(1 - time_dim)
    return (index < counts.unsqueeze(time_dim)).unsqueeze(2)


def _clean_padding(input: Tensor, spans: Tensor | float, live: Tensor) -> tuple[Tensor, Tensor | float]:
    """Overwrite the padding, which may hold NaN: masking results alone would let it into the gradients."""
    if isinstance(spans, Tensor) and spans.dim() > 0:
        spans = spans.masked_fill(~live, 1.0)
    return input.masked_fill(~live, 0.0), spans
