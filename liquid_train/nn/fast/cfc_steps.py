"""The two loops of ``CfCFunction`` over steps, in tensor operations.

Shapes: T steps, B batch, H hidden units, N heads, K width of a backbone layer, F width of the first map.
"""

from collections.abc import Callable, Sequence
from functools import partial

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
    held: Sequence[int] = (),
) -> tuple[Tensor, list[Tensor]]:
    """Run the steps.

    Args:
        keep: Whether there will be a backward pass.
        mode: Of the cell.
        activation: Of the backbone; None without one.
        span: The span of every step where ``spans`` is None.
        x: What the inputs add to the first map, ``[T, B, F]``, bias included. It is overwritten.
        h: Initial state in the form that ``recurrent`` reads, ``[B, H]``.
        spans: ``[T, B, 1]`` or None.
        a: ``A`` of mode ``pure``, ``[1, H]``, else None.
        w_tau: Likewise.
        recurrent: Weight of the first map on the state, ``[F, H]``.
        maps: Weight and bias of every further map; the last of all maps gives the heads.
        held: See ``Holding``.

    Returns:
        States before the first step and after each, ``[T + 1, B, H]``. What each map gave at every step,
        ``[T, B, ·]``, overwritten by what became of it: of the first map in ``x``, and of the others without
        ``keep`` that of the last step only.
    """
    form = form_of(mode, span, spans, a, w_tau)
    T, B = x.shape[:2]
    states = h.new_empty(T + 1, B, h.shape[1])
    states[0] = h
    first, *weights = (weight.t() for weight in (recurrent, *maps[::2]))
    results = [x, *(x.new_empty(T if keep else 1, B, weight.shape[1]) for weight in weights)]
    inputs, *others = (_rows(y, T) for y in results)
    layers = list(zip((bias.expand(B, -1) for bias in maps[1::2]), weights, others, strict=True))
    parts = [_rows(part, T) for part in form.parts(results[-1])]
    heads = zip(*parts, strict=True) if parts else [()] * T
    times = [None] * T if spans is None else spans.unbind()
    old, *new = states.unbind()
    for t, (y, head, time, out) in enumerate(zip(inputs, heads, times, new, strict=True)):
        y.addmm_(old, first)
        for bias, weight, rows in layers:
            y = torch.addmm(bias, _activate(activation, y), weight, out=rows[t])
        form.step(time, out, y, *head)
        if t < len(held):
            out[:, held[t] :] = old[:, held[t] :]
        old = out
    return states, results


def run_back(
    totals: Tensor,
    d_heads: Tensor,
    slopes: Sequence[Tensor],
    recurrent: Tensor,
    weights: Sequence[Tensor],
    held: Sequence[int] = (),
) -> Tensor:
    """Run the steps backwards and return the gradient of the first state ``[B, H]``.

    Args:
        totals: Gradients of the states ``[T, B, H]``, to which those that later steps bring are added.
        d_heads: The derivatives of the states by the heads ``[T, B, N, H]``, which become their gradients.
        slopes: Those of the activations ``[T, B, K]``, which become the gradients of what they take.
        recurrent: As ``run_steps`` takes it.
        weights: Those of the further maps.
        held: See ``Holding``.
    """
    total_rows, factors = totals.unbind(), totals.unsqueeze(2).unbind()
    rows, flat_rows = d_heads.unbind(), d_heads.flatten(2).unbind()
    layers = [(weight, slope.unbind()) for weight, slope in zip(weights, slopes, strict=True)][::-1]
    for t in range(len(rows) - 1, -1, -1):
        rows[t].mul_(factors[t])
        if t < len(held):
            rows[t][:, :, held[t] :] = 0.0
        d = flat_rows[t]
        for weight, slope_rows in layers:
            d = slope_rows[t].mul_(d.mm(weight))
        total = total_rows[t - 1].addmm_(d, recurrent) if t > 0 else d.mm(recurrent)
        if t < len(held):
            kept = total_rows[t][:, held[t] :]
            total[:, held[t] :] += kept
            kept.zero_()
    return total


class Holding:
    """The loops for a cell some of whose units begin later than others.

    Args:
        held: In the first steps, one for each of these numbers, units from that number on keep their state.
    """

    def __init__(self, held: Sequence[int]) -> None:
        self.run_steps: Callable[..., tuple[Tensor, list[Tensor]]] = partial(run_steps, held=held)
        self.run_back: Callable[..., Tensor] = partial(run_back, held=held)


def _rows(buffer: Tensor, T: int) -> tuple[Tensor, ...]:
    """Return a view for each step; of one step's buffer the same for all."""
    return buffer.unbind() * (T // len(buffer))


def _activate(activation: Activation | None, y: Tensor) -> Tensor:
    assert activation is not None
    return activation.core(y)
