"""From the parameters of a CfC to what ``CfCFunction`` takes: maps merged, constants folded into them.

Shapes: T steps, B batch, C input channels, H hidden units, K features that the heads read.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast.activations import ACTIVATIONS, Activation
from liquid_train.nn.fast.calls import CfCPlan
from liquid_train.nn.fast.cfc_function import CfCFunction, CfCLoops
from liquid_train.nn.fast.cfc_steps import Holding
from liquid_train.nn.fast.compiled import operators
from liquid_train.nn.fast.replay import plain_cfc, replayable
from liquid_train.nn.fast.single_cfc import run_single_cfc, serves_single
from liquid_train.nn.gpu.choice import cfc_loops

Map = tuple[Tensor, Tensor]
"""Weight and bias."""


def run_cfc(plan: CfCPlan, *tensors: Any, held: Sequence[int] = ()) -> Tensor:
    """Return the states after each step ``[T, B, H]``; ``CfCPlan`` has the tensors.

    In the first steps, one for each number in ``held``, units from that number on keep their state.
    """
    if not torch.compiler.is_compiling() and serves_single(plan, *tensors):
        return run_single_cfc(plan, *tensors, held=held)
    x, h, spans, mask, time_mask, a, w_tau, *flat = tensors
    gated = plan.mode != "pure"
    # One copy that the projection and a replay keep.
    x = x.contiguous()
    given: list[Map] = list(zip(flat[::2], flat[1::2], strict=True))
    maps = given[: plan.layers]
    maps.append(_heads(plan, spans is not None, given[plan.layers :], mask, time_mask))
    activation = ACTIVATIONS[plan.activation] if plan.layers else None
    if activation is not None:
        maps = _fold(maps, activation)
    (weight, bias), *rest = maps
    inputs, recurrent = weight.split([x.shape[2], h.shape[1]], 1)
    start = h
    if gated:
        # The state runs as (h + 1) / 2.
        bias = bias - recurrent.sum(1)
        recurrent, start = 2 * recurrent, 0.5 * h + 0.5
    # Not F.linear: its gradient of the weight takes several times as long for few inputs.
    projected = torch.addmm(bias, x.flatten(0, 1), inputs.t()).unflatten(0, x.shape[:2])
    derived = (projected, start, spans, a, w_tau, recurrent, *chain(*rest))
    if torch.compiler.is_compiling():
        name = plan.activation if plan.layers else None
        states = operators.call("cfc_steps", (plan.mode, name, plan.span), derived)
        return 2 * states - 1 if gated else states
    loops: CfCLoops = Holding(held)
    if not held:
        loops = cfc_loops(plan.mode, activation, projected, len(rest), spans is not None)
    steps = (plan.mode, activation, plan.span, *derived)
    if not (torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in derived)):
        states = loops.run_steps(False, *steps)[0][1:]
        return states.mul_(2).sub_(1) if gated else states
    states = CfCFunction.apply(loops, *steps)  # type: ignore[no-untyped-call]
    given_again = (x, *tensors[1:])
    if gated:
        again = partial(_shifted_cfc, held=held)
        return replayable(again, plan, states, given_again).mul(2).sub_(1)
    # A copy: the output may be changed in place, what the Function keeps must not.
    return replayable(partial(plain_cfc, held=held), plan, states, given_again).clone()


def _shifted_cfc(plan: CfCPlan, *tensors: Any, held: Sequence[int]) -> Tensor:
    return 0.5 * plain_cfc(plan, *tensors, held=held) + 0.5


def _heads(
    plan: CfCPlan, spans: bool, heads: list[Map], mask: Tensor | None, time_mask: Tensor | None
) -> Map:
    """Merge the heads into one map; a span of every step joins the gate's two heads."""
    if plan.mode == "pure":
        ((weight, bias),) = heads
        return masked(weight, mask), bias
    f1, f2, (a, a_bias), (b, b_bias) = heads
    weights, biases = [2 * masked(f[0], mask) for f in (f1, f2)], [2 * f[1] for f in (f1, f2)]
    a, b = masked(a, time_mask), masked(b, time_mask)
    if spans:
        weights += [b, a]
        biases += [b_bias, a_bias]
    else:
        weights.append(b + plan.span * a)
        biases.append(b_bias + plan.span * a_bias)
    return torch.cat(weights), torch.cat(biases)


def masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights that a mask keeps."""
    return weight if mask is None else weight * mask


def _fold(maps: list[Map], activation: Activation) -> list[Map]:
    """Move the activation's constants into the maps before and after it."""
    folded = []
    last = len(maps) - 1
    for index, (weight, bias) in enumerate(maps):
        if index > 0 and activation.shift != 0.0:
            bias = torch.add(bias, weight.sum(1), alpha=activation.shift)
        factor = (activation.gain if index > 0 else 1.0) * (activation.scale if index < last else 1.0)
        weight = weight if factor == 1.0 else weight * factor
        bias = bias if index == last or activation.scale == 1.0 else bias * activation.scale
        folded.append((weight, bias))
    return folded
