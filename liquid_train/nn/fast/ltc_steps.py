"""The two loops of ``LTCFunction`` over steps, in tensor operations, with the samples last.

Shapes: T steps, B batch, H neurons, U solver parts of a step; ``[·, 2H]`` as in ``synapses``.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from liquid_train.nn.fast.synapses import Synapses, synapses_of


def run_steps(
    unfolds: int,
    sources: Tensor | None,
    base: Tensor,
    v: Tensor,
    spans: Tensor | None,
    cm: Tensor,
    weights: Tensor,
    slope: Tensor,
    offset: Tensor,
) -> Tensor:
    """Return the potentials before the first step and after each, ``[T + 1, B, H]``; see ``LTCFunction``."""
    synapses = synapses_of(sources, weights, slope, offset, v.shape[1])
    states = v.new_empty(len(base) + 1, *v.t().shape)
    states[0] = v.t()
    column, room, v = cm.unsqueeze(1), synapses.room(states[0]), states[0]
    for (step, span), state in zip(_each(base, spans), states[1:].unbind(), strict=True):
        for _ in range(unfolds):
            v = _part(synapses, column, step, span, v, room)[1]
        state.copy_(v)
    return states.transpose(1, 2)


def run_back(
    unfolds: int,
    sources: Tensor | None,
    base: Tensor,
    spans: Tensor | None,
    cm: Tensor,
    weights: Tensor,
    slope: Tensor,
    offset: Tensor,
    states: Tensor,
    grads: Tensor,
) -> tuple[Tensor | None, ...]:
    """Run the steps backwards, each forwards first.

    ``states`` are what ``run_steps`` returned, ``grads`` ``[T, B, H]`` the gradients of those after each step.

    Returns:
        The gradients of base, first potentials, spans, cm, weights, slope and offset.
    """
    T, B, H = grads.shape
    synapses = synapses_of(sources, weights, slope, offset, H)
    d_base = base.new_empty(T, 2 * H, B)
    d_spans = None if spans is None else spans.new_empty(T, B)
    column = cm.unsqueeze(1)
    d_cm, dv = torch.zeros_like(cm), grads.new_zeros(H, B)
    ds = d_base.new_empty(unfolds, 2 * H, B)
    *rooms, inner = (synapses.room(dv) for _ in range(unfolds + 1))
    slots = list(zip(ds.unbind(), ds[:, :H].unbind(), ds[:, H:].unbind(), rooms, strict=True))
    steps = zip(_each(base, spans), states.transpose(1, 2).unbind(), strict=False)
    for t, ((step, span), v) in reversed(list(enumerate(steps))):
        parts = []
        for room in rooms:
            parts.append((v, *_part(synapses, column, step, span, v, room)))
            v = parts[-1][2]
        dv = dv + grads[t].t()
        for slot, (old, denominator, new, _) in zip(reversed(slots), reversed(parts), strict=True):
            d, d_denominator, d_numerator, opened = slot
            torch.div(dv, denominator, out=d_numerator)
            torch.mul(d_numerator, new, out=d_denominator).neg_()
            scaled = d if span is None else d * span
            dv = torch.addcmul(synapses.back(opened, scaled, inner), d_numerator, column)
            synapses.add_gradients(old, opened, scaled, inner)
        torch.sum(ds, 0, out=d_base[t])
        d_cm += (ds[:, H:] * torch.stack([part[0] for part in parts])).sum((0, 2))
        if d_spans is not None:
            torch.sum(ds * torch.stack([part[3] for part in parts]), (0, 1), out=d_spans[t])
    d_spans = None if d_spans is None else d_spans.unsqueeze(2)
    return d_base.transpose(1, 2), dv.t(), d_spans, d_cm, *synapses.gradients()


def _each(base: Tensor, spans: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield for each step its base ``[2H, B]`` and spans ``[B]``."""
    rows = base.transpose(1, 2).contiguous().unbind()
    return zip(rows, [None] * len(rows) if spans is None else spans.squeeze(2).unbind(), strict=True)


def _part(
    synapses: Synapses, cm: Tensor, base: Tensor, span: Tensor | None, v: Tensor, room: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve one part: return denominator, potentials and sums, and write how far synapses are open to ``room``."""
    sums = synapses.total(synapses.opened(v, room))
    totals = base + sums if span is None else torch.addcmul(base, sums, span)
    denominator, numerator = totals.chunk(2)
    return denominator, torch.addcmul(numerator, cm, v).div_(denominator), sums
