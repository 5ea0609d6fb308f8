"""From the parameters of an LTC to what ``LTCFunction`` takes.

Shapes: T steps, B batch, C input channels, H neurons, P synapses, S sources (C or H); ``[·, 2H]`` as in
``synapses``.
"""

from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast import ltc_steps, single_ltc
from liquid_train.nn.fast.calls import LTCPlan
from liquid_train.nn.fast.compiled import operators
from liquid_train.nn.fast.layout import Layout, choose_layout, every_pair
from liquid_train.nn.fast.ltc_function import LTCFunction
from liquid_train.nn.fast.replay import plain_ltc, replayable
from liquid_train.nn.fast.synapses import Listed, synapses_of
from liquid_train.nn.gpu.choice import ltc_loops


def run_ltc(plan: LTCPlan, *tensors: Any) -> Tensor:
    """Return the potentials after each step ``[T, B, H]``; ``LTCPlan`` has the tensors."""
    x, v, spans, cm, gleak, vleak, *of_synapses = tensors
    d = plan.span if spans is None else spans
    *of_synapses, sensory_mask, mask = of_synapses
    compiling = torch.compiler.is_compiling()
    pairs = every_pair(of_synapses[:4], sensory_mask, 1.0)
    sensory = pairs if compiling else choose_layout(pairs, sensory_mask)[0]
    leak = torch.cat([gleak + plan.epsilon, gleak * vleak])
    base = d * (_sums(sensory, x.flatten(0, 1)).unflatten(0, x.shape[:2]) + leak)
    base = base + torch.cat([cm, torch.zeros_like(cm)])
    pairs = every_pair(of_synapses[4:], mask, 1.0 if spans is not None else plan.span)
    if compiling:
        given = (base, v, spans, cm, *pairs[1:], mask)
        return operators.call("ltc_steps", (plan.unfolds, plan.span), given)
    (sources, *parameters), _ = choose_layout(pairs, mask)
    loops = ltc_loops(plan.unfolds, base, sources is None, spans is not None)
    if loops is ltc_steps and single_ltc.serves_single(v, parameters[1].numel()):
        loops = single_ltc
    states: Tensor = LTCFunction.apply(  # type: ignore[no-untyped-call]
        loops, plan.unfolds, sources, base, v, spans, cm, *parameters
    )
    return replayable(plain_ltc, plan, states, tensors)


def _sums(layout: Layout, x: Tensor) -> Tensor:
    """Sum over sources for all rows ``[N, S]`` at once, ``[N, 2H]``, by operations that autograd records."""
    synapses, v = synapses_of(*layout, x.shape[1]), x.t().contiguous()
    if isinstance(synapses, Listed):
        v = v.index_select(0, synapses.sources)
    opened = torch.sigmoid(v * synapses.slope - synapses.offset)
    return synapses.total(opened).t()
