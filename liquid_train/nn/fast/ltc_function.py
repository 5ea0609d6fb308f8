"""An LTC over whole sequences, forward and backward, that keeps the state of each step and nothing else.

Everything within a step is computed again in the backward pass.

Shapes: T steps, B batch, H neurons, U solver parts of a step; ``[·, 2H]`` as in ``synapses``.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LTCLoops(Protocol):
    """The two loops over steps: the module ``ltc_steps``, or another with the same functions."""

    run_steps: Callable[..., Tensor]
    run_back: Callable[..., tuple[Any, ...]]


class LTCFunction(torch.autograd.Function):
    """``apply(loops, unfolds, sources, base, v, spans, cm, weights, slope, offset) -> states``.

    Args:
        loops: What runs the steps.
        unfolds: Solver parts U of a step.
        sources: Source of each listed synapse ``[P]``, or None where every pair has one.
        base: What does not depend on the state: denominators, then numerators, ``[T, B, 2H]``.
        v: Potentials before the first step ``[B, H]``.
        spans: Length of a solver part ``[T, B, 1]`` that multiplies the synapses' sums; None where it is in
            the weights.
        cm: Capacitances ``[H]``.
        weights: See ``Listed.of`` and ``Paired.of``, as for ``slope`` and ``offset``.

    Returns:
        Potentials after each step ``[T, B, H]``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        loops: LTCLoops,
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
        states = loops.run_steps(unfolds, sources, base, v, spans, cm, weights, slope, offset)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(sources, base, spans, cm, weights, slope, offset, states)
        ctx.loops, ctx.unfolds = loops, unfolds
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the steps backwards, each forwards first."""
        if grads is None:  # they went to a replay
            return (None,) * len(ctx.needs_input_grad)
        sources, base, spans, cm, weights, slope, offset, states = ctx.saved_tensors
        gradients = ctx.loops.run_back(
            ctx.unfolds, sources, base, spans, cm, weights, slope, offset, states, grads
        )
        return None, None, None, *gradients
