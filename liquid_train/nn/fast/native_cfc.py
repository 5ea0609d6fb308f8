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
from liquid_train.nn.fast.replay import must_replay, plain_cfc, replayed
from liquid_train.nn.native.library import Library
from liquid_train.nn.native.structures import (
    ACTIVATIONS,
    MODES,
    CfCCall,
    address,
    addresses,
    sequence,
)


def run_native_cfc(library: Library, plan: CfCPlan, *tensors: Tensor | None) -> Tensor:
    """Return the states after each step ``[T, B, H]``; ``CfCPlan`` has the tensors."""
    given = readable(tensors)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in given):
        states: Tensor = NativeCfC.apply(library, plan, *given)  # type: ignore[no-untyped-call]
        return states
    out = empty_states(given)
    forward_cfc(library, plan, given, out, ())
    return out


class NativeCfC(torch.autograd.Function):
    """``apply(library, plan, x, h, spans, mask, time_mask, a, w_tau, *maps) -> states``.

    Args:
        library: The kernels.
        plan: The call's constants.
        x: ``[T, B, C]``; it and all other tensors of ``CfCPlan`` as ``readable`` returns them.

    Returns:
        States after each step, ``[T, B, H]``, in memory batch by batch if ``x`` is.
    """

    @staticmethod
    def forward(ctx: Any, library: Library, plan: CfCPlan, *tensors: Tensor | None) -> Tensor:
        """Run the steps."""
        x, h, *given = tensors
        out, kept = empty_states(tensors), empty_kept(plan, tensors)
        forward_cfc(library, plan, tensors, out, kept)
        ctx.save_for_backward(*kept, x, h if ctx.needs_input_grad[3] else None, *given)
        ctx.library, ctx.plan = library, plan
        return out

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """Run the steps backwards."""
        states, values, u, x, h, *given = ctx.saved_tensors
        tensors, needed = (x, states[0] if h is None else h, *given), ctx.needs_input_grad[2:]
        if must_replay(grads):
            return None, None, *replayed(plain_cfc, ctx.plan, tensors, needed, grads)
        return None, None, *backward_cfc(ctx.library, ctx.plan, tensors, (states, values, u), grads, needed)


def readable(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the tensors of ``CfCPlan`` as the kernels read them: contiguous, of ``x`` the rows."""
    x, *rest = tensors
    assert x is not None
    return [_in_rows(x), *(None if part is None else part.contiguous() for part in rest)]


def empty_states(tensors: Sequence[Tensor | None]) -> Tensor:
    """Return room for the states after each step, in the order of ``x``."""
    x, h = tensors[:2]
    assert x is not None
    assert h is not None
    return _empty_rows(x, h.shape[1])


def empty_kept(plan: CfCPlan, tensors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor, Tensor]:
    """Return room for what the backward pass needs: states, values after the backbone's layers, heads."""
    x, h, spans, first = *tensors[:3], tensors[7]
    assert x is not None
    assert h is not None
    assert first is not None
    T, B, H = *x.shape[:2], h.shape[1]
    heads = 1 if plan.mode == "pure" else 3 if spans is None else 4
    return (
        h.new_empty(T + 1, B, H),
        h.new_empty(plan.layers, T, B, len(first) if plan.layers else 0),
        h.new_empty(T, B, heads * H),
    )


def forward_cfc(
    library: Library, plan: CfCPlan, tensors: Sequence[Tensor | None], out: Tensor, kept: Sequence[Tensor]
) -> None:
    """Run the steps; nothing is kept where there is no room given for it."""
    call, _kept = _call(plan, tensors)
    call.initial, call.out = address(tensors[1]), sequence(out)
    if kept:
        call.states, call.values, call.u = map(address, kept)
    library.cfc_forward(call)


def backward_cfc(
    library: Library,
    plan: CfCPlan,
    tensors: Sequence[Tensor | None],
    kept: Sequence[Tensor],
    grads: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Run the steps backwards and return the tensors' gradients.

    Those of input and spans are there only if needed; those of weights are products over all steps at once.
    """
    x, h, spans, _, _, _, _, *maps = tensors
    call, _kept = _call(plan, tensors)
    call.states, call.values, call.u = map(address, kept)
    assert x is not None
    assert h is not None
    d_x = _empty_rows(x, x.shape[2]) if needed[0] else None
    d_initial = torch.empty_like(h)
    d_spans = torch.empty_like(spans) if spans is not None and needed[2] else None
    closed = h.new_zeros(call.threads, 2, h.shape[1])
    d_maps = [torch.empty_like(part) for part in maps if part is not None]
    pointers, grads = addresses(d_maps), _in_rows(grads)
    call.grads, call.d_x, call.d_initial = sequence(grads), sequence(d_x), address(d_initial)
    call.d_spans, call.d_closed = address(d_spans), address(closed)
    call.d_maps = ctypes.addressof(pointers)
    library.cfc_backward(call)
    d_a, d_w_tau = closed.sum(0).unsqueeze(1) if plan.mode == "pure" else (None, None)
    return [d_x, d_initial, d_spans, None, None, d_a, d_w_tau, *d_maps]


def _empty_rows(x: Tensor, width: int) -> Tensor:
    """Return room for ``[T, B, width]`` with contiguous rows, in the order of ``x``."""
    T, B, N = *x.shape[:2], width
    # Not a transposed view: autograd forbids to change a view in place that a Function returns.
    return x.new_empty_strided((T, B, N), (B * N, N, 1) if x.stride(0) > x.stride(1) else (N, T * N, 1))


def _in_rows(tensor: Tensor) -> Tensor:
    """Return a tensor ``[T, B, ·]`` with contiguous rows."""
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def _call(plan: CfCPlan, tensors: Sequence[Tensor | None]) -> tuple[CfCCall, object]:
    """Return what the kernels take for any pass, and what must live until they have run."""
    x, h, spans, mask, time_mask, a, w_tau, *maps = tensors
    assert x is not None
    assert h is not None
    backbone, heads = addresses(maps[: 2 * plan.layers]), addresses(maps[2 * plan.layers :])
    activation, gain, scale = ACTIVATIONS[plan.activation]
    width = len(maps[0]) if plan.layers and maps[0] is not None else 0
    call = CfCCall(
        *(*x.shape, h.shape[1], plan.layers, width, MODES[plan.mode], activation, torch.get_num_threads()),
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
