"""An LTC over whole sequences on a GPU, its steps run by the Triton kernels.

Shapes: T steps, B batch, H neurons.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from liquid_train.nn.gpu.kernels import ltc as ltc_kernels

_TILE = {"ROWS": 4, "SOURCES": 16, "COLUMNS": 32}


class TritonLTC(torch.autograd.Function):
    """``apply(unfolds, base, v, spans, cm, weights, slope, offset) -> states``, as ``LTCFunction`` for all pairs."""

    @staticmethod
    def forward(
        ctx: Any,
        unfolds: int,
        base: Tensor,
        v: Tensor,
        spans: Tensor | None,
        *parameters: Tensor,
    ) -> Tensor:
        """Run the steps."""
        base, spans = base.contiguous(), None if spans is None else spans.contiguous()
        parameters = tuple(part.contiguous() for part in parameters)
        T, (B, H) = len(base), v.shape
        states = v.new_empty(T + 1, B, H)
        states[0] = v
        with torch.cuda.device_of(base):
            ltc_kernels.forward[(triton.cdiv(B, _TILE["ROWS"]),)](
                *(
                    base,
                    states,
                    v.new_empty(unfolds + 1, B, H),
                    base if spans is None else spans,
                    *parameters,
                ),
                *(T, B, H),
                UNFOLDS=unfolds,
                SPANS=spans is not None,
                **_TILE,
            )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(base, spans, *parameters, states)
        ctx.unfolds = unfolds
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the steps backwards, each forwards first."""
        if grads is None:  # they went to a replay
            return (None,) * len(ctx.needs_input_grad)
        base, spans, *parameters, states = ctx.saved_tensors
        T, B, H = grads.shape
        programs, unfolds = triton.cdiv(B, _TILE["ROWS"]), ctx.unfolds
        grads, room = grads.contiguous(), states.new_empty
        d_base, d_v = torch.zeros_like(base), torch.zeros_like(states[0])
        d_spans = None if spans is None else torch.empty_like(spans)
        sums = [part.new_zeros(programs, *part.shape) for part in parameters]
        # Without spans the kernel reads and writes neither.
        times, d_times = (base, d_base) if spans is None or d_spans is None else (spans, d_spans)
        with torch.cuda.device_of(base):
            ltc_kernels.backward[(programs,)](
                *(grads[-1], base[-1], states[-2], room(unfolds + 1, B, H), room(unfolds, B, H)),
                *(room(unfolds, B, 2 * H), times[-1], *parameters),
                *(room(B, 2 * H), d_base[-1], d_v, d_times[-1], *sums),
                *(T, B, H),
                UNFOLDS=unfolds,
                SPANS=spans is not None,
                **_TILE,
            )
        return None, d_base, d_v, d_spans, *(part.sum(0) for part in sums)
