"""Which layout of synapses is faster.

Shapes: H targets, S sources, P synapses.
"""

import torch
from torch import Tensor

_LISTED_PER_NEURON = 8
"""Up to so many synapses per neuron, a matrix product with mostly zeros is faster than one per neuron."""

Layout = tuple[Tensor | None, Tensor, Tensor, Tensor]
"""Sources, weights, slope and offset as ``synapses_of`` takes them."""


def every_pair(parameters: list[Tensor], mask: Tensor, factor: float) -> Layout:
    """Take every pair; ``parameters`` are ``w``, ``mu``, ``sigma`` and ``erev`` ``[S, H]``, like the mask."""
    w, mu, sigma, erev = parameters
    w = w * mask * factor
    return None, torch.stack([w, w * erev]), sigma, sigma * mu


def choose_layout(pairs: Layout, mask: Tensor) -> tuple[Layout, tuple[Tensor, Tensor] | None]:
    """List the synapses if there are few, with the sources and targets ``[P]`` of those listed."""
    H = mask.shape[1]
    # Counting synapses would make an accelerator wait.
    if mask.device.type != "cpu":
        return pairs, None
    sources, targets = torch.nonzero(mask, as_tuple=True)
    if len(sources) > _LISTED_PER_NEURON * H:
        return pairs, None
    _, all_weights, slope, offset = pairs
    chosen, rows = all_weights[:, sources, targets], torch.arange(len(sources))
    weights = chosen.new_zeros(len(sources), 2 * H)
    weights = weights.index_put((rows, targets), chosen[0])
    weights = weights.index_put((rows, targets + H), chosen[1])
    return (sources, weights, slope[sources, targets], offset[sources, targets]), (sources, targets)


def from_list(
    places: tuple[Tensor, Tensor], weights: Tensor, slope: Tensor, offset: Tensor, pairs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring gradients of listed synapses to those of every pair, zero where there is none.

    Args:
        places: Sources and targets ``[P]``, as ``choose_layout`` returns them.
        weights: ``[P, 2H]``.
        slope: ``[P]``, like ``offset``.
        offset: See ``slope``.
        pairs: Any tensor ``[S, H]``.
    """
    (sources, targets), rows = places, torch.arange(len(slope))
    all_weights = pairs.new_zeros(2, *pairs.shape)
    all_weights[0, sources, targets] = weights[rows, targets]
    all_weights[1, sources, targets] = weights[rows, targets + pairs.shape[1]]
    all_slope, all_offset = torch.zeros_like(pairs), torch.zeros_like(pairs)
    all_slope[places], all_offset[places] = slope, offset
    return all_weights, all_slope, all_offset
