"""A CfC cell over whole sequences, its steps run by the kernels.

Shapes: T steps, B batch, C input channels, H hidden units, K width of a backbone layer, L backbone layers,
N heads.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.native.library import Library
from liquid_train.nn.native.structures import (
    ACTIVATIONS,
    MODES,
    CfCCall,
    address,
    addresses,
    sequence,
)


@dataclass(frozen=True)
class Plan:
    """What a call is about, beside its tensors.

    Attributes:
        library: The kernels.
        mode: The cell's.
        layers: Backbone layers L.
        activation: Class name of the backbone's activation.
        span: The span of every step where samples have none of their own.
    """

    library: Library
    mode: str
    layers: int
    activation: str
    span: float


def serves_cfc(cell: CfCCell) -> bool:
    """Return whether the kernels have the cell's activation."""
    return cell.backbone is None or type(cell.backbone[1]).__name__ in ACTIVATIONS


def run_native_cfc(library: Library, cell: CfCCell, x: Tensor, h: Tensor, spans: Tensor | float) -> Tensor:
    """Run a cell over ``x`` ``[T, B, C]`` from state ``h`` ``[B, H]`` and return all states ``[T, B, H]``.

    ``spans`` is ``[T, B, 1]`` or one number.
    """
    times, span = (spans, 1.0) if isinstance(spans, Tensor) else (None, spans)
    linears = [module for module in cell.backbone or () if isinstance(module, nn.Linear)]
    activation = "ReLU" if cell.backbone is None else type(cell.backbone[1]).__name__
    plan = Plan(library, cell.mode, len(linears), activation, span)
    pure = cell.mode == "pure"
    linears += [cell.ff1] if pure else [cell.ff1, cell.ff2, cell.time_a, cell.time_b]
    a, w_tau = (cell.A, cell.w_tau) if pure else (None, None)
    time_mask = cell.sparsity_mask if cell.strict_wiring else None
    maps = [part for linear in linears for part in (linear.weight, linear.bias)]
    tensors = (x, h, times, cell.sparsity_mask, time_mask, a, w_tau, *maps)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in tensors):
        states: Tensor = NativeCfC.apply(plan, *tensors)  # type: ignore[no-untyped-call]
        return states
    return _forward(plan, *tensors)[0]


class NativeCfC(torch.autograd.Function):
    """``apply(plan, x, h, spans, mask, time_mask, a, w_tau, *maps) -> states``.

    Args:
        plan: What is no tensor.
        x: ``[T, B, C]``.
        h: Initial state ``[B, H]``.
        spans: ``[T, B, 1]`` or None.
        mask: Of ff1 and ff2, or None.
        time_mask: Of time_a and time_b, or None.
        a: ``A`` of mode ``pure``, ``[1, H]``, else None.
        w_tau: Likewise.
        maps: Weight and bias of each backbone layer, then of each head.

    Returns:
        States after each step, ``[T, B, H]``, in memory batch by batch if ``x`` is.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, x: Tensor, h: Tensor, *given: Tensor | None) -> Tensor:
        """Run the steps."""
        first = given[5]
        assert first is not None
        T, B, H = *x.shape[:2], h.shape[1]
        kept = (
            h.new_empty(T + 1, B, H),
            h.new_empty(plan.layers, T, B, len(first) if plan.layers else 0),
            h.new_empty(T, B, _head_count(plan, given[0]) * H),
        )
        out, x, given = _forward(plan, x, h, *given, kept=kept)
        ctx.save_for_backward(x, *kept, *given)
        ctx.plan = plan
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """Run the steps backwards; gradients of weights are products over all steps at once."""
        plan: Plan = ctx.plan
        x, states, values, u, *given = ctx.saved_tensors
        spans, maps = given[0], given[5:]
        call, _kept = _call(plan, x, given, states.shape[2])
        call.states, call.values, call.u = states.data_ptr(), values.data_ptr(), u.data_ptr()
        grads = _in_rows(grads)
        d_x = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        d_initial = torch.empty_like(states[0])
        d_spans = torch.empty_like(spans) if ctx.needs_input_grad[3] else None
        closed = states.new_zeros(call.threads, 2, states.shape[2])
        d_maps = [torch.empty_like(part) for part in maps]
        pointers = addresses(d_maps)
        call.grads, call.d_x, call.d_initial = sequence(grads), sequence(d_x), address(d_initial)
        call.d_spans, call.d_closed = address(d_spans), address(closed)
        call.d_maps = ctypes.addressof(pointers)
        plan.library.cfc_backward(call)

        d_a, d_w_tau = closed.sum(0).unsqueeze(1) if plan.mode == "pure" else (None, None)
        return None, d_x, d_initial, d_spans, None, None, d_a, d_w_tau, *d_maps


def _forward(
    plan: Plan, x: Tensor, h: Tensor, *given: Tensor | None, kept: tuple[Tensor, Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """Return the states, and ``x`` and the given tensors as the kernels read them."""
    x, h, given = (
        _in_rows(x),
        h.contiguous(),
        tuple(None if part is None else part.contiguous() for part in given),
    )
    T, B, H = *x.shape[:2], h.shape[1]
    # Not a transposed view: autograd forbids to change a view in place that a Function returns.
    out = h.new_empty_strided((T, B, H), (B * H, H, 1) if x.stride(0) > x.stride(1) else (H, T * H, 1))
    call, _kept = _call(plan, x, given, H)
    call.initial, call.out = h.data_ptr(), sequence(out)
    if kept is not None:
        call.states, call.values, call.u = map(address, kept)
    plan.library.cfc_forward(call)
    return out, x, given


def _in_rows(tensor: Tensor) -> Tensor:
    """Return a tensor ``[T, B, ·]`` with contiguous rows."""
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def _head_count(plan: Plan, spans: Tensor | None) -> int:
    if plan.mode == "pure":
        return 1
    return 3 if spans is None else 4


def _call(plan: Plan, x: Tensor, given: Sequence[Tensor | None], units: int) -> tuple[CfCCall, object]:
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
