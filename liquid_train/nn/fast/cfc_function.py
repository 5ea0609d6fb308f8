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


def run_steps(
    keep: bool,
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
) -> tuple[Tensor, list[Tensor]]:
    """Run the steps; what follows ``keep`` is as in ``CfCFunction``.

    Returns:
        States before the first step and after each, ``[T + 1, B, H]``. What each map gave at every step,
        ``[T, B, ·]``, overwritten by what became of it; without ``keep`` that of the last step only.
    """
    form = _form(mode, span, spans, a, w_tau)
    T, B = x.shape[:2]
    states = h.new_empty(T + 1, B, h.shape[1])
    states[0] = h
    first, *weights = (weight.t() for weight in (recurrent, *maps[::2]))
    results = [x.new_empty(T if keep else 1, B, weight.shape[1]) for weight in (first, *weights)]
    firsts, *others = (_rows(y, T) for y in results)
    layers = list(zip((bias.expand(B, -1) for bias in maps[1::2]), weights, others, strict=True))
    heads = zip(*(_rows(part, T) for part in form.parts(results[-1])), strict=True)
    times = [None] * T if spans is None else spans.unbind()
    old, *new = states.unbind()
    for t, (input, parts, time, out) in enumerate(zip(x.unbind(), heads, times, new, strict=True)):
        y = torch.addmm(input, old, first, out=firsts[t])
        for bias, weight, rows in layers:
            y = torch.addmm(bias, _activate(activation, y), weight, out=rows[t])
        form.step(time, out, *parts)
        old = out
    return states, results


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
        states, results = run_steps(True, mode, activation, span, x, h, spans, a, w_tau, recurrent, *maps)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(spans, a, w_tau, recurrent, *maps, states, *results)
        ctx.constants = mode, activation, span
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the steps backwards."""
        if grads is None:  # they went to a replay
            return (None,) * len(ctx.needs_input_grad)
        mode, activation, span = ctx.constants
        spans, a, w_tau, recurrent, *rest = ctx.saved_tensors
        count = (len(rest) - 2) // 3
        maps, states, (*arguments, heads) = rest[: 2 * count], rest[2 * count], rest[2 * count + 1 :]
        form = _form(mode, span, spans, a, w_tau)
        values = [_value(activation, y) for y in arguments]
        slopes = [_slope(activation, y, z) for y, z in zip(arguments, values, strict=True)]
        d_heads = form.slopes(heads, spans)

        totals = grads.clone()
        total_rows, factors = totals.unbind(), totals.unsqueeze(2).unbind()
        rows, flat_rows = d_heads.unbind(), d_heads.flatten(2).unbind()
        layers = [(weight, slope.unbind()) for weight, slope in zip(maps[::2], slopes, strict=True)][::-1]
        for t in range(len(rows) - 1, -1, -1):
            rows[t].mul_(factors[t])
            d = flat_rows[t]
            for weight, slope_rows in layers:
                d = slope_rows[t].mul_(d.mm(weight))
            if t > 0:
                total_rows[t - 1].addmm_(d, recurrent)
        d_initial = d.mm(recurrent)

        ends = [*slopes, d_heads.flatten(2)]
        inputs = [states[:-1], *values]
        # This way round: the other takes up to four times as long for few units.
        d_weights = [(z.flatten(0, 1).t() @ d.flatten(0, 1)).t() for d, z in zip(ends, inputs, strict=True)]
        d_spans, d_a, d_w_tau = form.others(heads, spans, totals, d_heads)
        d_maps = [part for d, w in zip(ends[1:], d_weights[1:], strict=True) for part in (w, d.sum((0, 1)))]
        return None, None, None, ends[0], d_initial, d_spans, d_a, d_w_tau, d_weights[0], *d_maps


def _form(mode: str, span: float, spans: Tensor | None, a: Tensor | None, w_tau: Tensor | None) -> Form:
    if mode == "pure":
        assert a is not None
        assert w_tau is not None
        return ClosedForm(a, w_tau, span)
    return Gated(mode == "default", spans is not None)


def _rows(buffer: Tensor, T: int) -> tuple[Tensor, ...]:
    """Return a view for each step; of one step's buffer the same for all."""
    return buffer.unbind() * (T // len(buffer))


def _activate(activation: Activation | None, y: Tensor) -> Tensor:
    assert activation is not None
    return activation.core(y)


def _value(activation: Activation | None, y: Tensor) -> Tensor:
    """Return what the activation made of ``y``, in whose place it is unless the slope needs the argument."""
    assert activation is not None
    return activation.core(y) if activation.keeps_argument else y


def _slope(activation: Activation | None, y: Tensor, z: Tensor) -> Tensor:
    assert activation is not None
    return activation.slope(y, z)
