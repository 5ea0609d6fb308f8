"""The two loops of ``CfCFunction`` over steps, in tensor operations.

Shapes: T steps, B batch, H hidden units, N heads, K width of a backbone layer, F width of the first map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from liquid_train.nn.fast.activations import Activation
from liquid_train.nn.fast.cfc_forms import form_of


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
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run the steps; the arguments after ``keep`` are those of ``CfCFunction``.

    Returns:
        States before the first step and after each ``[T + 1, B, H]``; what each map gave and what the activation
        made of it, ``[T, B, ·]`` if ``keep``, else of the last step only.
    """
    form = form_of(mode, span, spans, a, w_tau)
    T, B = x.shape[:2]
    states = h.new_empty(T + 1, B, h.shape[1])
    states[0] = h
    weights = [weight.t() for weight in (recurrent, *maps[::2])]
    arguments = [x.new_empty(T if keep else 1, B, weight.shape[1]) for weight in weights]
    values = [torch.empty_like(y) if _keeps(activation) else y for y in arguments[:-1]]
    layers = [
        (_rows(z, T), bias, weight, _rows(y, T))
        for z, bias, weight, y in zip(values, maps[1::2], weights[1:], arguments[1:], strict=True)
    ]
    firsts = _rows(arguments[0], T)
    heads = zip(*(_rows(part, T) for part in form.parts(arguments[-1])), strict=True)
    times = [None] * T if spans is None else spans.unbind()
    old, *new = states.unbind()
    for t, (input, parts, time, out) in enumerate(zip(x.unbind(), heads, times, new, strict=True)):
        y = torch.addmm(input, old, weights[0], out=firsts[t])
        for below, bias, weight, above in layers:
            y = torch.addmm(bias, _activate(activation, y, below[t]), weight, out=above[t])
        form.step(parts, time, out)
        old = out
    return states, arguments, values


def run_back(
    totals: Tensor, d_heads: Tensor, slopes: Sequence[Tensor], recurrent: Tensor, weights: Sequence[Tensor]
) -> Tensor:
    """Run the steps backwards and return the gradient of the first state ``[B, H]``.

    Args:
        totals: Gradients of the states ``[T, B, H]``, to which those that later steps bring are added.
        d_heads: The derivatives of the states by the heads ``[T, B, N, H]``, which become their gradients.
        slopes: Those of the activations ``[T, B, K]``, which become the gradients of what they take.
        recurrent: As ``CfCFunction`` takes it.
        weights: Those of the further maps.
    """
    rows, total_rows, factors = d_heads.unbind(), totals.unbind(), totals.unsqueeze(2).unbind()
    below = [
        (slope.unbind(), weight) for slope, weight in zip(reversed(slopes), reversed(weights), strict=True)
    ]
    flat = d_heads.flatten(2).unbind()
    for t in range(len(rows) - 1, -1, -1):
        rows[t].mul_(factors[t])
        d = flat[t]
        for slope_rows, weight in below:
            d = slope_rows[t].mul_(d.mm(weight))
        if t > 0:
            total_rows[t - 1].addmm_(d, recurrent)
    return d.mm(recurrent)


def _rows(buffer: Tensor, T: int) -> tuple[Tensor, ...]:
    """Return a view for each step; of one step's buffer the same for all."""
    return buffer.unbind() * (T // len(buffer))


def _keeps(activation: Activation | None) -> bool:
    return activation is not None and activation.keeps_argument


def _activate(activation: Activation | None, y: Tensor, out: Tensor) -> Tensor:
    assert activation is not None
    return out.copy_(activation.core(y)) if activation.keeps_argument else activation.core(y)
