"""Sequences in plain operations that autograd records, for gradients of gradients.

The backward passes of the fast path are no graph of operations. Where they are to be differentiated
themselves (``create_graph=True``), they hand over to ``replayed``, which runs the steps again, one by one.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liquid_train.nn.activations import ACTIVATIONS
from liquid_train.nn.cfc_cell import closed_form, gated
from liquid_train.nn.fast.calls import CfCPlan, LTCPlan
from liquid_train.nn.ltc_cell import solve

Run = Callable[..., Tensor]

_ACTIVATIONS: dict[str, nn.Module] = {kind.__name__: kind() for kind in ACTIVATIONS.values()}


def must_replay(grads: Tensor) -> bool:
    """Return whether a backward pass is to be differentiated, or gets many gradients at once."""
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_legacy_batchedtensor(grads)
    )


def replayed(
    run: Run, plan: object, tensors: Sequence[Tensor | None], needed: Sequence[bool], grads: Tensor
) -> list[Tensor | None]:
    """Return the gradients of the tensors that need one, as functions of tensors and ``grads``.

    Args:
        run: Takes plan and tensors; returns the states.
        plan: What is no tensor.
        tensors: As autograd knows them.
        needed: Which of them need a gradient.
        grads: Of the states.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # An alias of each: one tensor may be given twice.
        own = [part.view_as(part) if part is not None else None for part in tensors]
        states = run(plan, *own)
        wanted = [part for part, need in zip(own, needed, strict=True) if part is not None and need]
        found = iter(torch.autograd.grad(states, wanted, grads, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needed]


class Replayable(torch.autograd.Function):
    """``apply(run, plan, states, *tensors) -> states``, with gradients that can be differentiated.

    The first backward pass is that of ``states``, a second one that of ``run(plan, *tensors)``, which must
    be equal.
    """

    @staticmethod
    def forward(ctx: Any, run: Run, plan: object, states: Tensor, *tensors: Tensor | None) -> Tensor:
        """Pass the states on."""
        ctx.save_for_backward(*tensors)
        ctx.run, ctx.plan = run, plan
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """Choose where the gradients go."""
        if not must_replay(grads):
            return None, None, grads, *(None for _ in ctx.needs_input_grad[3:])
        found = replayed(ctx.run, ctx.plan, ctx.saved_tensors, ctx.needs_input_grad[3:], grads)
        return None, None, None, *found


def replayable(run: Run, plan: object, states: Tensor, tensors: Sequence[Tensor | None]) -> Tensor:
    """Return the states, which are those of ``run(plan, *tensors)``, with all derivatives."""
    if not (torch.is_grad_enabled() and states.requires_grad):
        return states
    result: Tensor = Replayable.apply(run, plan, states, *tensors)  # type: ignore[no-untyped-call]
    return result


def plain_cfc(
    plan: CfCPlan,
    x: Tensor,
    h: Tensor,
    spans: Tensor | None,
    mask: Tensor | None,
    time_mask: Tensor | None,
    a: Tensor | None,
    w_tau: Tensor | None,
    *maps: Tensor,
    held: Sequence[int] = (),
) -> Tensor:
    """Return the states ``[T, B, H]`` of a CfC cell; ``CfCPlan`` has the tensors, ``run_cfc`` says what is held."""
    split = 2 * plan.layers
    backbone = list(zip(maps[:split:2], maps[1:split:2], strict=True))
    masks = (mask, mask, time_mask, time_mask)
    # A cell in mode pure has one head.
    heads = zip(maps[split::2], masks, strict=False)
    weight = torch.cat([w if part is None else w * part for w, part in heads])
    bias = torch.cat(maps[split + 1 :: 2])
    closed = None if a is None or w_tau is None else (a, w_tau)
    states: list[Tensor] = []
    for input, t in zip(x.unbind(), _each(spans, plan.span), strict=False):
        z = torch.cat([input, h], 1)
        for w, b in backbone:
            z = _ACTIVATIONS[plan.activation](F.linear(z, w, b))
        u = F.linear(z, weight, bias)
        old, h = h, gated(plan.mode, t, *u.chunk(4, 1)) if closed is None else closed_form(*closed, u, t)
        if len(states) < len(held):
            first = held[len(states)]
            h = torch.cat([h[:, :first], old[:, first:]], 1)
        states.append(h)
    return torch.stack(states)


def plain_ltc(plan: LTCPlan, x: Tensor, v: Tensor, spans: Tensor | None, *parameters: Tensor) -> Tensor:
    """Return the potentials ``[T, B, H]`` of an LTC cell; ``LTCPlan`` has the tensors."""
    cm, gleak, vleak = parameters[:3]
    sensory_w, *sensory = parameters[3:7]
    w, *neural = parameters[7:11]
    sensory_mask, mask = parameters[11:]
    circuit = cm, gleak, vleak, (sensory_w * sensory_mask, *sensory), (w * mask, *neural)
    states = []
    for input, d in zip(x.unbind(), _each(spans, plan.span), strict=False):
        v = solve(input, v, d, plan.unfolds, plan.epsilon, *circuit)
        states.append(v)
    return torch.stack(states)


def _each(spans: Tensor | None, span: float) -> Iterable[Tensor | float]:
    return repeat(span) if spans is None else spans.unbind()
