"""From the parameters of an LTC to what ``LTCFunction`` takes.

Shapes: T steps, B batch, C input channels, H neurons, P synapses, S sources (C or H); ``[·, 2H]`` as in
``synapses``.
"""

from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast import operators
from liquid_train.nn.fast.calls import LTCPlan
from liquid_train.nn.fast.layout import choose_layout
from liquid_train.nn.fast.ltc_function import LTCFunction
from liquid_train.nn.fast.replay import plain_ltc, replayable
from liquid_train.nn.fast.synapses import Listed, Paired, Synapses


def run_ltc(plan: LTCPlan, *tensors: Any) -> Tensor:
    """Return the potentials after each step ``[T, B, H]``; ``LTCPlan`` has the tensors."""
    x, v, spans, cm, gleak, vleak, *of_synapses = tensors
    d = plan.span if spans is None else spans
    *of_synapses, sensory_mask, mask = of_synapses
    compiling = torch.compiler.is_compiling()
    pairs = _pairs(of_synapses[:4], sensory_mask, 1.0)
    sensory = pairs if compiling else choose_layout(pairs, sensory_mask)[0]
    leak = torch.cat([gleak + plan.epsilon, gleak * vleak])
    base = d * (_sums(sensory, x.flatten(0, 1)).unflatten(0, x.shape[:2]) + leak)
    base = base + torch.cat([cm, torch.zeros_like(cm)])
    pairs = _pairs(of_synapses[4:], mask, 1.0 if spans is not None else plan.span)
    if compiling:
        given = (base, v, spans, cm, pairs.weights, pairs.slope, pairs.offset, mask)
        return operators.call("ltc_steps", (plan.unfolds, plan.span), given)
    synapses, places = choose_layout(pairs, mask)
    sources = None if places is None else places[0]
    states: Tensor = LTCFunction.apply(  # type: ignore[no-untyped-call]
        plan.unfolds, sources, base, v, spans, cm, synapses.weights, synapses.slope, synapses.offset
    )
    return replayable(plain_ltc, plan, states, tensors)


def _sums(synapses: Synapses, x: Tensor) -> Tensor:
    """Sum over sources for all rows at once, by operations that autograd records."""
    if isinstance(synapses, Listed):
        opened = torch.sigmoid(x[:, synapses.sources] * synapses.slope - synapses.offset)
    else:
        opened = torch.sigmoid(x.unsqueeze(2) * synapses.slope - synapses.offset)
    return synapses.total(opened)


def _pairs(parameters: list[Tensor], mask: Tensor, factor: float) -> Paired:
    """Take every pair; ``parameters`` are ``w``, ``mu``, ``sigma`` and ``erev`` ``[S, H]``, like the mask."""
    w, mu, sigma, erev = parameters
    w = w * mask * factor
    return Paired(torch.stack([w, w * erev]), sigma, sigma * mu)
