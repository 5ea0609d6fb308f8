"""From the parameters of an LTC to what ``LTCFunction`` takes.

Shapes: T steps, B batch, C input channels, H neurons, P synapses, S sources (C or H); ``[·, 2H]`` as in
``synapses``.
"""

from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast.calls import LTCPlan
from liquid_train.nn.fast.ltc_function import LTCFunction
from liquid_train.nn.fast.replay import plain_ltc, replayable
from liquid_train.nn.fast.synapses import Listed, synapses_of

_LISTED_PER_NEURON = 8
"""Up to so many synapses per neuron, a matrix product with mostly zeros is faster than one per neuron."""


def run_ltc(plan: LTCPlan, *tensors: Any) -> Tensor:
    """Return the potentials after each step ``[T, B, H]``; ``LTCPlan`` has the tensors."""
    x, v, spans, cm, gleak, vleak, *of_synapses = tensors
    d = plan.span if spans is None else spans
    *of_synapses, sensory_mask, mask = of_synapses
    sensory = _layout(of_synapses[:4], sensory_mask, 1.0)
    leak = torch.cat([gleak + plan.epsilon, gleak * vleak])
    base = d * (_sums(sensory, x.flatten(0, 1)).unflatten(0, x.shape[:2]) + leak)
    base = base + torch.cat([cm, torch.zeros_like(cm)])
    sources, *parameters = _layout(of_synapses[4:], mask, d if isinstance(d, float) else 1.0)
    states: Tensor = LTCFunction.apply(  # type: ignore[no-untyped-call]
        plan.unfolds, sources, base, v, spans, cm, *parameters
    )
    return replayable(plain_ltc, plan, states, tensors)


def _sums(layout: tuple[Tensor | None, Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """Sum over sources for all rows ``[N, S]`` at once, ``[N, 2H]``, by operations that autograd records."""
    synapses, v = synapses_of(*layout, x.shape[1]), x.t().contiguous()
    if isinstance(synapses, Listed):
        v = v.index_select(0, synapses.sources)
    opened = torch.sigmoid(v * synapses.slope - synapses.offset)
    return synapses.total(opened).t()


def _layout(
    parameters: list[Tensor], mask: Tensor, factor: float
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """List the synapses if there are few, else take every pair.

    ``parameters`` are ``w``, ``mu``, ``sigma`` and ``erev`` ``[S, H]``, like the mask. Returns sources, weights,
    slope and offset as ``synapses_of`` takes them.
    """
    H = mask.shape[1]
    w, mu, sigma, erev = parameters
    w, offset = w * mask * factor, sigma * mu
    # Counting synapses would make an accelerator wait.
    if mask.device.type == "cpu":
        sources, targets = torch.nonzero(mask, as_tuple=True)
        if len(sources) <= _LISTED_PER_NEURON * H:
            chosen, rows = w[sources, targets], torch.arange(len(sources))
            weights = w.new_zeros(len(sources), 2 * H)
            weights = weights.index_put((rows, targets), chosen)
            weights = weights.index_put((rows, targets + H), chosen * erev[sources, targets])
            return sources, weights, sigma[sources, targets], offset[sources, targets]
    return None, torch.stack([w, w * erev]), sigma, offset
