"""The synapses of an LTC circuit as two layouts: a list of those present, or every pair of neurons.

Shapes: N rows (a batch, or several steps of one), S sources, H targets, P synapses in the list. ``[N, 2H]``
holds for each target the summed conductance, then the summed current at zero potential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Synapses(Protocol):
    """Synapses from S sources to H targets. ``open`` is how far each is open, between 0 and 1."""

    @property
    def weights(self) -> Tensor:
        """What the reduction multiplies ``open`` with: conductance, and conductance times reversal potential."""

    @property
    def slope(self) -> Tensor:
        """``sigma`` of each synapse."""

    @property
    def offset(self) -> Tensor:
        """``sigma · mu``."""

    def opened(self, v: Tensor) -> Tensor:
        """Return ``open`` for potentials ``v`` ``[N, S]``."""

    def total(self, opened: Tensor) -> Tensor:
        """Return the sums over sources, ``[N, 2H]``."""

    def back(self, opened: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of ``open``'s argument and of the potentials ``[N, S]`` from ``d`` ``[N, 2H]``."""

    def parameters(
        self, v: Tensor, opened: Tensor, d: Tensor, inner: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of weights, slope and offset; ``inner`` is the first result of ``back``."""


@dataclass(frozen=True)
class Listed:
    """Synapses that are present: ``open`` is ``[N, P]``, sums are one matrix product with ``[P, 2H]``."""

    weights: Tensor
    slope: Tensor
    offset: Tensor
    sources: Tensor
    back_weights: Tensor

    @staticmethod
    def of(weights: Tensor, slope: Tensor, offset: Tensor, sources: Tensor, count: int) -> Listed:
        """Take weights ``[P, 2H]``, the others ``[P]``, for ``count`` sources."""
        back_weights = slope.new_zeros(len(slope), count)
        back_weights.scatter_(1, sources.unsqueeze(1), slope.detach().unsqueeze(1))
        return Listed(weights, slope, offset, sources, back_weights)

    def opened(self, v: Tensor) -> Tensor:
        """See ``Synapses``."""
        return v.index_select(1, self.sources).mul_(self.slope).sub_(self.offset).sigmoid_()

    def total(self, opened: Tensor) -> Tensor:
        """See ``Synapses``."""
        return opened.mm(self.weights)

    def back(self, opened: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Synapses``."""
        inner = _logistic_back(d.mm(self.weights.t()), opened)
        return inner, inner.mm(self.back_weights)

    def parameters(
        self, v: Tensor, opened: Tensor, d: Tensor, inner: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Synapses``."""
        by_slope = (inner * v.index_select(1, self.sources)).sum(0)
        return opened.t().mm(d), by_slope, -inner.sum(0)


@dataclass(frozen=True)
class Paired:
    """Every pair of source and target: ``open`` is ``[N, S, H]``; weights, conductances first, ``[2, S, H]``."""

    weights: Tensor
    slope: Tensor
    offset: Tensor

    def opened(self, v: Tensor) -> Tensor:
        """See ``Synapses``."""
        return torch.mul(v.unsqueeze(2), self.slope).sub_(self.offset).sigmoid_()

    def total(self, opened: Tensor) -> Tensor:
        """See ``Synapses``."""
        return torch.cat([(opened * weight).sum(1) for weight in self.weights], 1)

    def back(self, opened: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Synapses``."""
        d_g, d_current = d.unsqueeze(1).chunk(2, 2)
        inner = (self.weights[0] * d_g).addcmul_(self.weights[1], d_current)
        inner = _logistic_back(inner, opened)
        return inner, (inner * self.slope).sum(2)

    def parameters(
        self, v: Tensor, opened: Tensor, d: Tensor, inner: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Synapses``."""
        weights = torch.stack([(opened * part).sum(0) for part in d.unsqueeze(1).chunk(2, 2)])
        return weights, (inner * v.unsqueeze(2)).sum(0), -inner.sum(0)


def _logistic_back(d: Tensor, value: Tensor) -> Tensor:
    return d.mul_(torch.addcmul(value, value, value, value=-1))
