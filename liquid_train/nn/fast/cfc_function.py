"""A CfC cell over whole sequences, forward and backward, in few tensor operations per step.

What autograd would do step by step is done once for the sequence: the slopes of all states and activations
before the backward loop, the gradients of the weights after it.

Shapes: T steps, B batch, H hidden units, N heads, K width of a backbone layer, F width of the first map.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from liquid_train.nn.fast.activations import Activation
from liquid_train.nn.fast.calls import CfCPlan
from liquid_train.nn.fast.cfc_fold import activation_of, fold, unfold
from liquid_train.nn.fast.cfc_forms import form_of
from liquid_train.nn.fast.replay import must_replay, plain_cfc, replayed


class CfCLoops(Protocol):
    """The two loops over steps: the module ``cfc_steps``, or another with the same functions."""

    run_steps: Callable[..., tuple[Tensor, list[Tensor]]]
    run_back: Callable[..., Tensor]


class CfCFunction(torch.autograd.Function):
    """``apply(loops, plan, held, *tensors) -> states``.

    Folding and its way back are in it: as operations that autograd records they took 6 % of a training step.

    Args:
        loops: What runs the steps.
        plan: The call's constants; it has the tensors.
        held: See ``run_cfc``.

    Returns:
        States after each step, ``[T, B, H]``.
    """

    @staticmethod
    def forward(
        ctx: Any, loops: CfCLoops, plan: CfCPlan, held: Sequence[int], *tensors: Tensor | None
    ) -> Tensor:
        """Run the steps."""
        given: Sequence[Any] = tensors
        _, _, spans, a, w_tau, *maps = derived = fold(plan, *given)
        states, results = loops.run_steps(True, plan.mode, activation_of(plan), plan.span, *derived)
        ctx.save_for_backward(*tensors, spans, a, w_tau, *maps, states, *results)
        ctx.constants = loops, plan, held
        # A copy: the output may be changed in place, what is kept must not.
        return states[1:].clone() if plan.mode == "pure" else states[1:].mul(2).sub_(1)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """Run the steps backwards."""
        loops, plan, held = ctx.constants
        needed, saved = ctx.needs_input_grad[3:], ctx.saved_tensors
        tensors, derived = saved[: len(needed)], saved[len(needed) :]
        if must_replay(grads):
            return None, None, None, *replayed(partial(plain_cfc, held=held), plan, tensors, needed, grads)
        factor = 1 if plan.mode == "pure" else 2
        totals = torch.mul(grads, factor, out=grads.new_empty(grads.shape))
        found = gradients(loops, plan.mode, activation_of(plan), plan.span, derived, totals)
        return None, None, None, *unfold(plan, tensors, found, needed[0])


def gradients(
    loops: CfCLoops,
    mode: str,
    activation: Activation | None,
    span: float,
    saved: Sequence[Tensor | None],
    totals: Tensor,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of what the loops take from ``x`` on.

    Args:
        loops: What runs the steps.
        mode: Of the cell.
        activation: Of the backbone; None without one.
        span: The span of every step where samples have none of their own.
        saved: What the loops take from ``spans`` on, the states ``[T + 1, B, H]``, and what every map gave, as
            ``run_steps`` returns them.
        totals: Gradients of the states in the form that ``recurrent`` reads, contiguous ``[T, B, H]``. They
            are overwritten.
    """
    tensors: Sequence[Any] = saved
    spans, a, w_tau, recurrent, *rest = tensors
    count = (len(rest) - 2) // 3
    maps, states, (*arguments, heads) = rest[: 2 * count], rest[2 * count], rest[2 * count + 1 :]
    form = form_of(mode, span, spans, a, w_tau)
    values = [_value(activation, y) for y in arguments]
    slopes = [_slope(activation, y, z) for y, z in zip(arguments, values, strict=True)]
    d_heads = form.slopes(heads, spans)

    d_initial = loops.run_back(totals, d_heads, slopes, recurrent, maps[::2])

    ends = [*slopes, d_heads.flatten(2)]
    inputs = [states[:-1], *values]
    # This way round: the other takes up to four times as long for few units.
    d_weights = [(z.flatten(0, 1).t() @ d.flatten(0, 1)).t() for d, z in zip(ends, inputs, strict=True)]
    d_spans, d_a, d_w_tau = form.others(heads, spans, totals, d_heads)
    d_maps = [part for d, w in zip(ends[1:], d_weights[1:], strict=True) for part in (w, d.sum((0, 1)))]
    return ends[0], d_initial, d_spans, d_a, d_w_tau, d_weights[0], *d_maps


def _value(activation: Activation | None, y: Tensor) -> Tensor:
    """Return what the activation made of ``y``, in whose place it is unless the slope needs the argument."""
    assert activation is not None
    return activation.core(y) if activation.keeps_argument else y


def _slope(activation: Activation | None, y: Tensor, z: Tensor) -> Tensor:
    assert activation is not None
    return activation.slope(y, z)
