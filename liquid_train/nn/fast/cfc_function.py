"""A CfC cell over whole sequences, forward and backward, in few tensor operations per step.

What autograd would do step by step is done once for the sequence: the slopes of all states and activations
before the backward loop, the gradients of the weights after it.

Shapes: T steps, B batch, H hidden units, N heads, K width of a backbone layer, F width of the first map.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from liquid_train.nn.fast.activations import Activation
from liquid_train.nn.fast.cfc_forms import form_of


class CfCLoops(Protocol):
    """The two loops over steps: the module ``cfc_steps``, or another with the same functions."""

    run_steps: Callable[..., tuple[Tensor, list[Tensor]]]
    run_back: Callable[..., Tensor]


class CfCFunction(torch.autograd.Function):
    """``apply(loops, mode, activation, span, x, h, spans, a, w_tau, recurrent, *maps) -> states``.

    Args:
        loops: What runs the steps.
        mode: Of the cell.
        activation: Of the backbone; None without one.
        span: The span of every step where ``spans`` is None.
        x: What the inputs add to the first map, ``[T, B, F]``, bias included. It may be overwritten.
        h: Initial state in the form that ``recurrent`` reads, ``[B, H]``.
        spans: ``[T, B, 1]`` or None.
        a: ``A`` of mode ``pure``, ``[1, H]``, else None.
        w_tau: Likewise.
        recurrent: Weight of the first map on the state, ``[F, H]``.
        maps: Weight and bias of every further map; the last of all maps gives the heads.

    Returns:
        States after each step in the form that ``recurrent`` reads, ``[T, B, H]``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        loops: CfCLoops,
        mode: str,
        activation: Activation | None,
        span: float,
        x: Tensor,
        h: Tensor,
        spans: Tensor | None,
        a: Tensor | None,
        w_tau: Tensor | None,
        recurrent: Tensor,
        *maps: Tensor,
    ) -> Tensor:
        """Run the steps."""
        given = (x, h, spans, a, w_tau, recurrent, *maps)
        states, results = loops.run_steps(True, mode, activation, span, *given)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(spans, a, w_tau, recurrent, *maps, states, *results)
        ctx.constants = loops, mode, activation, span
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the steps backwards."""
        if grads is None:  # they went to a replay
            return (None,) * len(ctx.needs_input_grad)
        loops, mode, activation, span = ctx.constants
        found = gradients(loops, mode, activation, span, ctx.saved_tensors, grads)
        return None, None, None, None, *found


def gradients(
    loops: CfCLoops,
    mode: str,
    activation: Activation | None,
    span: float,
    saved: Sequence[Tensor | None],
    grads: Tensor,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the tensors of ``CfCFunction`` from those of the states.

    ``saved`` are those tensors from ``spans`` on, the states ``[T + 1, B, ·]``, and what every map gave, as
    ``run_steps`` returns them.
    """
    tensors: Sequence[Any] = saved
    spans, a, w_tau, recurrent, *rest = tensors
    count = (len(rest) - 2) // 3
    maps, states, (*arguments, heads) = rest[: 2 * count], rest[2 * count], rest[2 * count + 1 :]
    form = form_of(mode, span, spans, a, w_tau)
    values = [_value(activation, y) for y in arguments]
    slopes = [_slope(activation, y, z) for y, z in zip(arguments, values, strict=True)]
    d_heads = form.slopes(heads, spans)

    totals = grads.clone(memory_format=torch.contiguous_format)
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
