"""The two loops of ``LTCFunction`` over steps, each as one kernel, for every pair: ``fast.ltc_steps`` has what they do.

Shapes: T steps, B batch, H neurons.
"""

import torch
import triton
from torch import Tensor

from liquid_train.nn.gpu.kernels import ltc as ltc_kernels

_TILE = {"ROWS": 4, "SOURCES": 16, "COLUMNS": 32}

_PROGRAMS = 256
"""Of a launch of the backward pass at most: each sums up gradients of all parameters."""


def run_steps(
    unfolds: int,
    sources: None,
    base: Tensor,
    v: Tensor,
    spans: Tensor | None,
    cm: Tensor,
    weights: Tensor,
    slope: Tensor,
    offset: Tensor,
) -> Tensor:
    """See ``fast.ltc_steps``."""
    T, (B, H) = len(base), v.shape
    states = v.new_empty(T + 1, B, H)
    states[0] = v
    base, parameters = base.contiguous(), _contiguous(cm, weights, slope, offset)
    # Without spans the kernel reads none.
    times = base if spans is None else spans.contiguous()
    with torch.cuda.device_of(base):
        ltc_kernels.forward[(triton.cdiv(B, _TILE["ROWS"]),)](
            *(base, states, v.new_empty(unfolds + 1, B, H), times, *parameters, T, B, H),
            UNFOLDS=unfolds,
            SPANS=spans is not None,
            **_TILE,
        )
    return states


def run_back(
    unfolds: int,
    sources: None,
    base: Tensor,
    spans: Tensor | None,
    cm: Tensor,
    weights: Tensor,
    slope: Tensor,
    offset: Tensor,
    states: Tensor,
    grads: Tensor,
) -> tuple[Tensor | None, ...]:
    """See ``fast.ltc_steps``."""
    T, B, H = grads.shape
    programs, room = triton.cdiv(B, _TILE["ROWS"]), states.new_empty
    at_once = min(programs, _PROGRAMS)
    base, grads, states, *parameters = _contiguous(base, grads, states, cm, weights, slope, offset)
    d_base, d_v = torch.zeros_like(base), torch.zeros_like(states[0])
    d_spans = None if spans is None else torch.empty_like(spans, memory_format=torch.contiguous_format)
    sums = [part.new_zeros(at_once, *part.shape) for part in parameters]
    # Without spans the kernel reads and writes none.
    times, d_times = (base, d_base) if spans is None or d_spans is None else (spans.contiguous(), d_spans)
    places = (
        *(grads[-1], base[-1], states[-2], room(unfolds + 1, B, H), room(unfolds, B, H)),
        *(room(unfolds, B, 2 * H), times[-1], *parameters),
        *(room(B, 2 * H), d_base[-1], d_v, d_times[-1], *sums),
    )
    with torch.cuda.device_of(base):
        for before in range(0, programs, at_once):
            ltc_kernels.backward[(min(at_once, programs - before),)](
                *(*places, T, B, H, before), UNFOLDS=unfolds, SPANS=spans is not None, **_TILE
            )
    return d_base, d_v, d_spans, *(part.sum(0) for part in sums)


def _contiguous(*tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]
