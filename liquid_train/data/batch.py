"""Time series, and batches of them.

Shape letters: B series in a batch, T time steps (of the longest series), C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Series:
    """One time series and what is to be learned about it."""

    values: Tensor
    """[T, C] float32."""
    target: Tensor
    """Scalar: a class index (int64) or a value (float32)."""
    timespans: Tensor | None = None
    """[T] float32, time since the step before; None where every step takes one unit."""


class Batch(NamedTuple):
    """Series of different lengths, padded with zeros at their ends."""

    inputs: Tensor
    """[B, T, C] float32."""
    lengths: Tensor
    """[B] int64, steps of each series that are not padding."""
    timespans: Tensor | None
    """[B, T] float32, time since the step before (padding: zero); None where every step takes one unit."""
    targets: Tensor
    """[B] class indices (int64) or values (float32)."""


def collate(series: Sequence[Series]) -> Batch:
    """Pad `series` to the longest of them."""
    timespans = [s.timespans for s in series if s.timespans is not None]
    return Batch(
        inputs=pad_sequence([s.values for s in series], batch_first=True),
        lengths=torch.tensor([len(s.values) for s in series]),
        timespans=pad_sequence(timespans, batch_first=True) if timespans else None,
        targets=torch.stack([s.target for s in series]),
    )
