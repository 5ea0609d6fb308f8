"""Which layout of synapses is faster.

Shapes: H targets, S sources, P synapses.
"""

import torch
from torch import Tensor

from liquid_train.nn.fast.synapses import Listed, Paired, Synapses

_LISTED_PER_NEURON = 8
"""Up to so many synapses per neuron, a matrix product with mostly zeros is faster than one per neuron."""


def choose_layout(pairs: Paired, mask: Tensor) -> tuple[Synapses, tuple[Tensor, Tensor] | None]:
    """List the synapses if there are few, with the sources and targets ``[P]`` of those listed."""
    S, H = mask.shape
    # Counting synapses would make an accelerator wait.
    if mask.device.type != "cpu":
        return pairs, None
    sources, targets = torch.nonzero(mask, as_tuple=True)
    if len(sources) > _LISTED_PER_NEURON * H:
        return pairs, None
    chosen, rows = pairs.weights[:, sources, targets], torch.arange(len(sources))
    weights = chosen.new_zeros(len(sources), 2 * H)
    weights = weights.index_put((rows, targets), chosen[0])
    weights = weights.index_put((rows, targets + H), chosen[1])
    slope, offset = pairs.slope[sources, targets], pairs.offset[sources, targets]
    return Listed.of(weights, slope, offset, sources, S), (sources, targets)
