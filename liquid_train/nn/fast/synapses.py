"""The synapses of an LTC circuit as two layouts: a list of those present, or every pair of neurons.

Shapes: N rows (a batch, or several steps of one), S sources, H targets, P synapses in the list. Sums over
sources are ``[2H, N]``: the conductance of each target, then its current at zero potential. Rows come last, so
that whatever is done for a synapse or neuron is done for a whole vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Synapses(Protocol):
    """Synapses from S sources to H targets. ``open`` is how far each is open, between 0 and 1."""

    def room(self, v: Tensor) -> Tensor:
        """Return memory for ``open`` at potentials ``v`` ``[S, N]``."""

    def opened(self, v: Tensor, out: Tensor) -> Tensor:
        """Write ``open`` for potentials ``v`` ``[S, N]`` to ``out``."""

    def total(self, opened: Tensor) -> Tensor:
        """Return the sums over sources, ``[2H, N]``."""

    def back(self, opened: Tensor, d: Tensor, out: Tensor) -> Tensor:
        """Write the gradient of ``open``'s argument to ``out`` and return that of the potentials ``[S, N]``.

        ``d`` ``[2H, N]`` is the gradient of the sums.
        """

    def add_gradients(self, v: Tensor, opened: Tensor, d: Tensor, inner: Tensor) -> None:
        """Add to the gradients of the parameters; ``inner`` is what ``back`` wrote."""

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what was added for weights, slope and offset, in the shapes that ``of`` takes."""


@dataclass(frozen=True)
class Listed:
    """Synapses that are present: ``open`` is ``[P, N]``, sums are one matrix product with ``[2H, P]``."""

    weights: Tensor
    slope: Tensor
    offset: Tensor
    sources: Tensor
    back_weights: Tensor
    totals: tuple[Tensor, Tensor, Tensor]

    @staticmethod
    def of(weights: Tensor, slope: Tensor, offset: Tensor, sources: Tensor, count: int) -> Listed:
        """Take weights ``[P, 2H]``, conductances first, the others ``[P]``, for ``count`` sources."""
        weights, slope, offset = weights.t().contiguous(), slope.unsqueeze(1), offset.unsqueeze(1)
        back_weights = slope.new_zeros(count, len(slope))
        back_weights.scatter_(0, sources.unsqueeze(0), slope.detach().t())
        totals = torch.zeros_like(weights), torch.zeros_like(slope), torch.zeros_like(offset)
        return Listed(weights, slope, offset, sources, back_weights, totals)

    def room(self, v: Tensor) -> Tensor:
        """See ``Synapses``."""
        return v.new_empty(len(self.slope), v.shape[1])

    def opened(self, v: Tensor, out: Tensor) -> Tensor:
        """See ``Synapses``."""
        torch.index_select(v, 0, self.sources, out=out)
        return out.mul_(self.slope).sub_(self.offset).sigmoid_()

    def total(self, opened: Tensor) -> Tensor:
        """See ``Synapses``."""
        return self.weights.mm(opened)

    def back(self, opened: Tensor, d: Tensor, out: Tensor) -> Tensor:
        """See ``Synapses``."""
        torch.mm(self.weights.t(), d, out=out)
        return self.back_weights.mm(_logistic_back(out, opened))

    def add_gradients(self, v: Tensor, opened: Tensor, d: Tensor, inner: Tensor) -> None:
        """See ``Synapses``."""
        weights, slope, offset = self.totals
        weights.addmm_(d, opened.t())
        slope.add_(v.index_select(0, self.sources).mul_(inner).sum(1, keepdim=True))
        offset.sub_(inner.sum(1, keepdim=True))

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Synapses``."""
        weights, slope, offset = self.totals
        return weights.t(), slope.squeeze(1), offset.squeeze(1)


@dataclass(frozen=True)
class Paired:
    """Every pair of target and source: ``open`` is ``[H, S, N]``, sums are one product per target."""

    weights: Tensor
    slope: Tensor
    offset: Tensor
    each: tuple[Tensor, ...]
    back_weights: Tensor
    through: Tensor
    totals: tuple[Tensor, Tensor, Tensor]

    @staticmethod
    def of(weights: Tensor, slope: Tensor, offset: Tensor) -> Paired:
        """Take weights ``[2, S, H]``, conductances first, the others ``[S, H]``."""
        weights, slope, offset = weights.permute(2, 0, 1), slope.t().unsqueeze(2), offset.t().unsqueeze(2)
        each = tuple(part.contiguous() for part in weights.split(1, 1))
        back_weights = weights.transpose(1, 2).contiguous()
        through = slope.permute(1, 2, 0).contiguous()
        totals = weights.new_zeros(weights.shape), slope.new_zeros(slope.shape), slope.new_zeros(slope.shape)
        return Paired(weights, slope, offset, each, back_weights, through, totals)

    def room(self, v: Tensor) -> Tensor:
        """See ``Synapses``."""
        return v.new_empty(*self.slope.shape[:2], v.shape[1])

    def opened(self, v: Tensor, out: Tensor) -> Tensor:
        """See ``Synapses``."""
        return torch.mul(self.slope, v, out=out).sub_(self.offset).sigmoid_()

    def total(self, opened: Tensor) -> Tensor:
        """See ``Synapses``: two products with one row each are quicker than one with two."""
        return torch.cat([weight.bmm(opened) for weight in self.each]).squeeze(1)

    def back(self, opened: Tensor, d: Tensor, out: Tensor) -> Tensor:
        """See ``Synapses``."""
        torch.bmm(self.back_weights, _by_target(d), out=out)
        return self.through.bmm(_logistic_back(out, opened).transpose(0, 1)).squeeze(1)

    def add_gradients(self, v: Tensor, opened: Tensor, d: Tensor, inner: Tensor) -> None:
        """See ``Synapses``."""
        weights, slope, offset = self.totals
        weights.baddbmm_(_by_target(d), opened.transpose(1, 2))
        slope.add_(v.unsqueeze(1).bmm(inner.permute(1, 2, 0)).permute(2, 0, 1))
        offset.sub_(inner.sum(2, keepdim=True))

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Synapses``."""
        weights, slope, offset = self.totals
        return weights.permute(1, 2, 0), slope.squeeze(2).t(), offset.squeeze(2).t()


def synapses_of(
    sources: Tensor | None, weights: Tensor, slope: Tensor, offset: Tensor, count: int
) -> Listed | Paired:
    """Return listed synapses, or every pair without ``sources``; see ``Listed.of`` and ``Paired.of``."""
    if sources is None:
        return Paired.of(weights, slope, offset)
    return Listed.of(weights, slope, offset, sources, count)


def _by_target(sums: Tensor) -> Tensor:
    """Return ``[2H, N]`` as ``[H, 2, N]``."""
    return sums.view(2, -1, sums.shape[1]).transpose(0, 1)


def _logistic_back(d: Tensor, value: Tensor) -> Tensor:
    """Turn the gradient of a logistic function into that of its argument, in place."""
    d.mul_(value)
    return d.addcmul_(d, value, value=-1)
