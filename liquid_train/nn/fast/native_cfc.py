"""A CfC cell over whole sequences, its steps run by the kernels.

Shapes: T steps, B batch, C input channels, H hidden units, K width of a backbone layer, L backbone layers,
N heads.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast.calls import CfCPlan
from liquid_train.nn.fast.replay import is_asked_for, plain_cfc, replayed
from liquid_train.nn.native.library import Library
from liquid_train.nn.native.structures import (
    ACTIVATIONS,
    MODES,
    CfCCall,
    address,
    addresses,
    sequence,
)


def run_native_cfc(library: Library, plan: CfCPlan, x: Tensor, *tensors: Tensor | None) -> Tensor:
    """Return the states after each step ``[T, B, H]``; ``CfCPlan`` has the tensors."""
    x, given = _in_rows(x), [None if part is None else part.contiguous() for part in tensors]
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (x, *given)):
        states: Tensor = NativeCfC.apply(library, plan, x, *given)  # type: ignore[no-untyped-call]
        return states
    h, *rest = given
    assert h is not None
    return _forward(library, plan, x, h, rest, None)


class NativeCfC(torch.autograd.Function):
    """``apply(library, plan, x, h, spans, mask, time_mask, a, w_tau, *maps) -> states``.

    Args:
        library: The kernels.
        plan: The call's constants.
        x: ``[T, B, C]`` with contiguous rows; all other tensors of ``CfCPlan`` are contiguous.

    Returns:
        States after each step, ``[T, B, H]``, in memory batch by batch if ``x`` is.
    """

    @staticmethod
    def forward(
        ctx: Any, library: Library, plan: CfCPlan, x: Tensor, h: Tensor, *given: Tensor | None
    ) -> Tensor:
        """Run the steps."""
        first = given[5]
        assert first is not None
        T, B, H = *x.shape[:2], h.shape[1]
        kept = (
            h.new_empty(T + 1, B, H),
            h.new_empty(plan.layers, T, B, len(first) if plan.layers else 0),
            h.new_empty(T, B, _head_count(plan, given[0]) * H),
        )
        out = _forward(library, plan, x, h, given, kept)
        ctx.save_for_backward(x, h if h.requires_grad else None, *kept, *given)
        ctx.library, ctx.plan = library, plan
        return out

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """Run the steps backwards; gradients of weights are products over all steps at once."""
        plan: CfCPlan = ctx.plan
        x, h, states, values, u, *given = ctx.saved_tensors
        if is_asked_for(grads):
            tensors = (x, states[0] if h is None else h, *given)
            return None, None, *replayed(plain_cfc, plan, tensors, ctx.needs_input_grad[2:], grads)
        spans, maps = given[0], given[5:]
        call, _kept = _call(plan, x, given, states.shape[2])
        call.states, call.values, call.u = states.data_ptr(), values.data_ptr(), u.data_ptr()
        grads = _in_rows(grads)
        d_x = torch.empty_like(x) if ctx.needs_input_grad[2] else None
        d_initial = torch.empty_like(states[0])
        d_spans = torch.empty_like(spans) if ctx.needs_input_grad[4] else None
        closed = states.new_zeros(call.threads, 2, states.shape[2])
        d_maps = [torch.empty_like(part) for part in maps]
        pointers = addresses(d_maps)
        call.grads, call.d_x, call.d_initial = sequence(grads), sequence(d_x), address(d_initial)
        call.d_spans, call.d_closed = address(d_spans), address(closed)
        call.d_maps = ctypes.addressof(pointers)
        ctx.library.cfc_backward(call)

        d_a, d_w_tau = closed.sum(0).unsqueeze(1) if plan.mode == "pure" else (None, None)
        return None, None, d_x, d_initial, d_spans, None, None, d_a, d_w_tau, *d_maps


def _forward(
    library: Library,
    plan: CfCPlan,
    x: Tensor,
    h: Tensor,
    given: Sequence[Tensor | None],
    kept: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:
    T, B, H = *x.shape[:2], h.shape[1]
    # Not a transposed view: autograd forbids to change a view in place that a Function returns.
    out = h.new_empty_strided((T, B, H), (B * H, H, 1) if x.stride(0) > x.stride(1) else (H, T * H, 1))
    call, _kept = _call(plan, x, given, H)
    call.initial, call.out = h.data_ptr(), sequence(out)
    if kept is not None:
        call.states, call.values, call.u = map(address, kept)
    library.cfc_forward(call)
    return out


def _in_rows(tensor: Tensor) -> Tensor:
    """Return a tensor ``[T, B, ·]`` with contiguous rows."""
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def _head_count(plan: CfCPlan, spans: Tensor | None) -> int:
    if plan.mode == "pure":
        return 1
    return 3 if spans is None else 4


def _call(plan: CfCPlan, x: Tensor, given: Sequence[Tensor | None], units: int) -> tuple[CfCCall, object]:
    """Return what the kernels take for any pass, and what must live until they have run."""
    spans, mask, time_mask, a, w_tau, *maps = given
    backbone, heads = addresses(maps[: 2 * plan.layers]), addresses(maps[2 * plan.layers :])
    activation, gain, scale = ACTIVATIONS[plan.activation]
    width = len(maps[0]) if plan.layers and maps[0] is not None else 0
    call = CfCCall(
        *(*x.shape, units, plan.layers, width, MODES[plan.mode], activation, torch.get_num_threads()),
        *(gain, scale, plan.span, 0.0),
        x=sequence(x),
        spans=address(spans),
        backbone=ctypes.addressof(backbone),
        heads=ctypes.addressof(heads),
        mask=address(mask),
        time_mask=address(time_mask),
        a=address(a),
        w_tau=address(w_tau),
    )
    return call, (backbone, heads)
