"""A CfC cell over whole sequences, forward and backward, in few tensor operations per step.

What autograd would do step by step is done once for the sequence: the slopes of all states and activations
before the backward loop, the gradients of the weights after it.

Shapes: T steps, B batch, H hidden units, N heads, K width of a backbone layer, F width of the first map.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from liquid_train.nn.fast.activations import Activation
from liquid_train.nn.fast.cfc_forms import ClosedForm, Form, Gated


class CfCFunction(torch.autograd.Function):
    """``apply(mode, activation, span, x, h, spans, a, w_tau, recurrent, *maps) -> states``.

    Args:
        mode: Of the cell.
        activation: Of the backbone; None without one.
        span: The span of every step where ``spans`` is None.
        x: What the inputs add to the first map, ``[T, B, F]``, bias included.
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
        form = _form(mode, span, spans, a, w_tau)
        T, B = x.shape[:2]
        states = h.new_empty(T + 1, B, h.shape[1])
        states[0] = h
        weights = [weight.t() for weight in (recurrent, *maps[::2])]
        biases = maps[1::2]
        arguments = [x.new_empty(T, B, weight.shape[1]) for weight in weights]
        values = [torch.empty_like(y) if _keeps(activation) else y for y in arguments[:-1]]
        rows = [y.unbind() for y in arguments]
        value_rows = [z.unbind() for z in values]
        times = [None] * T if spans is None else spans.unbind()
        steps = zip(states.unbind(), states.unbind()[1:], x.unbind(), times, strict=False)
        for t, (old, new, input, time) in enumerate(steps):
            y = torch.addmm(input, old, weights[0], out=rows[0][t])
            for index, bias in enumerate(biases):
                z = _activate(activation, y, value_rows[index][t])
                y = torch.addmm(bias, z, weights[index + 1], out=rows[index + 1][t])
            form.step(y, time, new)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(spans, a, w_tau, recurrent, *maps, states, *arguments, *values)
        ctx.constants = mode, activation, span, len(weights)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the steps backwards."""
        if grads is None:  # they went to a replay
            return (None,) * len(ctx.needs_input_grad)
        mode, activation, span, count = ctx.constants
        spans, a, w_tau, recurrent, *rest = ctx.saved_tensors
        maps, states = rest[: 2 * count - 2], rest[2 * count - 2]
        arguments, values = rest[2 * count - 1 : 3 * count - 1], rest[3 * count - 1 :]
        form = _form(mode, span, spans, a, w_tau)
        heads = arguments[-1]
        d_heads = form.slopes(heads, spans)
        slopes = [_slope(activation, y, z) for y, z in zip(arguments, values, strict=False)]
        weights = maps[::2]

        totals = grads.clone()
        rows, total_rows = d_heads.unbind(), totals.unbind()
        below = [slope.unbind() for slope in slopes]
        d_initial = torch.zeros_like(states[0])
        for t in range(len(rows) - 1, -1, -1):
            d = rows[t].mul_(total_rows[t].unsqueeze(1)).flatten(1)
            for index in range(count - 2, -1, -1):
                d = below[index][t].mul_(d.mm(weights[index]))
            target = total_rows[t - 1] if t > 0 else d_initial
            target.addmm_(d, recurrent)

        ends = [*slopes, d_heads.flatten(2)]
        inputs = [states[:-1], *values]
        d_weights = [d.flatten(0, 1).t() @ z.flatten(0, 1) for d, z in zip(ends, inputs, strict=True)]
        d_spans, d_a, d_w_tau = form.others(heads, spans, totals, d_heads)
        d_maps = [part for d, w in zip(ends[1:], d_weights[1:], strict=True) for part in (w, d.sum((0, 1)))]
        return None, None, None, ends[0], d_initial, d_spans, d_a, d_w_tau, d_weights[0], *d_maps


def _form(mode: str, span: float, spans: Tensor | None, a: Tensor | None, w_tau: Tensor | None) -> Form:
    if mode == "pure":
        assert a is not None
        assert w_tau is not None
        return ClosedForm(a, w_tau, span)
    return Gated(mode == "default", spans is not None)


def _keeps(activation: Activation | None) -> bool:
    return activation is not None and activation.keeps_argument


def _activate(activation: Activation | None, y: Tensor, out: Tensor) -> Tensor:
    assert activation is not None
    return out.copy_(activation.core(y)) if activation.keeps_argument else activation.core(y)


def _slope(activation: Activation | None, y: Tensor, z: Tensor) -> Tensor:
    assert activation is not None
    return activation.slope(y, z)
