"""An LTC over whole sequences, forward and backward, that keeps the state of each step and nothing else.

Everything within a step is computed again in the backward pass.

Shapes: T steps, B batch, H neurons, U solver parts of a step; ``[·, 2H]`` as in ``synapses``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from liquid_train.nn.fast.synapses import Listed, Paired, Synapses


class LTCFunction(torch.autograd.Function):
    """``apply(unfolds, sources, base, v, spans, cm, weights, slope, offset) -> states``.

    Args:
        unfolds: Solver parts U of a step.
        sources: Source of each listed synapse ``[P]``, or None where every pair has one.
        base: What does not depend on the state: denominators, then numerators, ``[T, B, 2H]``.
        v: Potentials before the first step ``[B, H]``.
        spans: Length of a solver part ``[T, B, 1]`` that multiplies the synapses' sums; None where it is in
            the weights.
        cm: Capacitances ``[H]``.
        weights: See ``Synapses``, as are ``slope`` and ``offset``.

    Returns:
        Potentials after each step ``[T, B, H]``.
    """

    @staticmethod
    def forward(
        ctx: Any,
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
        """Run the steps."""
        synapses = _synapses(sources, weights, slope, offset, v.shape[1])
        states = v.new_empty(len(base) + 1, *v.shape)
        states[0] = v
        for t, step in enumerate(base.unbind()):
            span = None if spans is None else spans[t]
            for _ in range(unfolds):
                v = _part(synapses, cm, step, span, v)[2]
            states[t + 1] = v
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(sources, base, spans, cm, weights, slope, offset, states)
        ctx.unfolds = unfolds
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the steps backwards, each forwards first."""
        if grads is None:  # they went to a replay
            return (None,) * len(ctx.needs_input_grad)
        sources, base, spans, cm, weights, slope, offset, states = ctx.saved_tensors
        synapses = _synapses(sources, weights, slope, offset, states.shape[2])
        d_base = torch.empty_like(base)
        d_spans = None if spans is None else torch.empty_like(spans)
        d_cm = torch.zeros_like(cm)
        d_parameters = [torch.zeros_like(part) for part in (weights, slope, offset)]
        dv = torch.zeros_like(states[0])
        for t in range(len(base) - 1, -1, -1):
            span = None if spans is None else spans[t]
            parts, v = [], states[t]
            for _ in range(ctx.unfolds):
                parts.append((v, *_part(synapses, cm, base[t], span, v)))
                v = parts[-1][3]
            dv = dv + grads[t]
            ds = []
            for old, opened, denominator, new, _ in reversed(parts):
                d_numerator = dv / denominator
                d = torch.cat([d_numerator * new.neg(), d_numerator], 1)
                scaled = d if span is None else d * span
                inner, through = synapses.back(opened, scaled)
                ds.append(d)
                gradients = synapses.parameters(old, opened, scaled, inner)
                for total, gradient in zip(d_parameters, gradients, strict=True):
                    total += gradient
                d_cm += (d_numerator * old).sum(0)
                dv = torch.addcmul(through, d_numerator, cm)
            torch.sum(torch.stack(ds), 0, out=d_base[t])
            parts.reverse()
            if d_spans is not None:
                sums = torch.stack([part[4] for part in parts])
                torch.sum(sums.mul_(torch.stack(ds)), (0, 2), out=d_spans[t].squeeze(1))
        return None, None, d_base, dv, d_spans, d_cm, *d_parameters


def _synapses(sources: Tensor | None, weights: Tensor, slope: Tensor, offset: Tensor, count: int) -> Synapses:
    if sources is None:
        return Paired(weights, slope, offset)
    return Listed.of(weights, slope, offset, sources, count)


def _part(
    synapses: Synapses, cm: Tensor, base: Tensor, span: Tensor | None, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solve one part: return how far synapses are open, the denominator, the potentials and the sums."""
    opened = synapses.opened(v)
    sums = synapses.total(opened)
    totals = base + sums if span is None else torch.addcmul(base, sums, span)
    denominator, numerator = totals.chunk(2, 1)
    return opened, denominator, torch.addcmul(numerator, cm, v) / denominator, sums
