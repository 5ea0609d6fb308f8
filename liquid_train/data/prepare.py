"""From raw series to what a network trains on: validation split, dropped steps, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from liquid_train.data.batch import Series
from liquid_train.errors import InputError


def split_validation(
    labels: NDArray[np.generic], fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw a share of each class for validation.

    Args:
        labels: [N] the class of each training series; equal labels for regression.
        fraction: share of each class to set aside; at least one series of a class that has two or more.
        seed: fixes the draw.

    Returns:
        The indices that stay in training and those set aside, both ascending.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = max(1, round(fraction * len(members))) if len(members) > 1 else 0
        chosen.append(members[:count])
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def drop_steps(series: Series, rate: float, seed: Sequence[int]) -> Series:
    """Drop a share of the time steps and keep the true distances between those that stay.

    The first timespan counts from one unit before the first original step, so that a series of which
    nothing is dropped has timespans of one, the networks' default. One step always stays.
    """
    steps = len(series.values)
    kept = max(1, round(steps * (1 - rate)))
    index = np.sort(np.random.default_rng(seed).choice(steps, kept, replace=False))
    timespans = torch.tensor(np.diff(index, prepend=-1), dtype=torch.float32)
    return replace(series, values=series.values[torch.from_numpy(index)], timespans=timespans)


@dataclass(frozen=True)
class Normalizer:
    """Zero mean and unit variance for each channel, over all steps of the series it was fitted to."""

    mean: Tensor
    """[C]."""
    scale: Tensor
    """[C], the standard deviation; one for a constant channel."""

    @classmethod
    def fit(cls, series: Sequence[Series]) -> Normalizer:
        """Measure `series`, each step counting once."""
        steps = torch.cat([s.values for s in series]).double()
        mean, deviation = steps.mean(0), steps.std(0, correction=0)
        scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        return cls(mean.float(), scale.float())

    def __call__(self, series: Series) -> Series:
        """Return `series` with normalised values."""
        return replace(series, values=(series.values - self.mean) / self.scale)


def check_share(name: str, value: float, *, zero: bool) -> None:
    """Require a share below one, and above zero unless `zero` is allowed.

    Raises:
        InputError: it is not.
    """
    if not (0 <= value < 1 if zero else 0 < value < 1):
        rule = "at least 0 and below 1" if zero else "between 0 and 1"
        raise InputError(f"{name}={value}: must be {rule}, for example {name}=0.1")
