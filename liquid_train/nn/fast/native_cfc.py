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

from liquid_train.nn.cfc_cell import CfCCell, LeCunTanh
from liquid_train.nn.native.library import Library
from liquid_train.nn.native.structures import CfCCall, address, addresses

_MODES = {"default": 0, "no_gate": 1, "pure": 2}
_ACTIVATIONS: dict[type, tuple[int, float, float]] = {
    LeCunTanh: (0, 1.7159, 0.666),
    nn.Tanh: (0, 1.0, 1.0),
    nn.ReLU: (1, 1.0, 1.0),
}
"""Number, gain and scale."""


@dataclass(frozen=True)
class Plan:
    """What a call is about, beside its tensors.

    Attributes:
        library: The kernels.
        mode: The cell's.
        layers: Backbone layers L.
        activation: Class of the backbone's activation.
        span: The span of every step where samples have none of their own.
    """

    library: Library
    mode: str
    layers: int
    activation: type
    span: float


def serves_cfc(cell: CfCCell) -> bool:
    """Return whether the kernels have the cell's activation."""
    return cell.backbone is None or type(cell.backbone[1]) in _ACTIVATIONS


def run_native_cfc(library: Library, cell: CfCCell, x: Tensor, h: Tensor, spans: Tensor | float) -> Tensor:
    """Run a cell over ``x`` ``[T, B, C]`` from state ``h`` ``[B, H]`` and return all states ``[T, B, H]``.

    ``spans`` is ``[T, B, 1]`` or one number.
    """
    times, span = (spans, 1.0) if isinstance(spans, Tensor) else (None, spans)
    linears = [module for module in cell.backbone or () if isinstance(module, nn.Linear)]
    activation = nn.ReLU if cell.backbone is None else type(cell.backbone[1])
    plan = Plan(library, cell.mode, len(linears), activation, span)
    pure = cell.mode == "pure"
    linears += [cell.ff1] if pure else [cell.ff1, cell.ff2, cell.time_a, cell.time_b]
    a, w_tau = (cell.A, cell.w_tau) if pure else (None, None)
    time_mask = cell.sparsity_mask if cell.strict_wiring else None
    maps = [part for linear in linears for part in (linear.weight, linear.bias)]
    states: Tensor = NativeCfC.apply(  # type: ignore[no-untyped-call]
        plan, x, h, times, cell.sparsity_mask, time_mask, a, w_tau, *maps
    )
    return states


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
        States after each step, ``[T, B, H]``.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, x: Tensor, h: Tensor, *given: Tensor | None) -> Tensor:
        """Run the steps."""
        x, given = x.contiguous(), tuple(None if part is None else part.contiguous() for part in given)
        T, B, H = *x.shape[:2], h.shape[1]
        first = given[5]
        assert first is not None
        states = h.new_empty(T + 1, B, H)
        states[0] = h
        values = h.new_empty(plan.layers, T, B, len(first) if plan.layers else 0)
        u = h.new_empty(T, B, _head_count(plan, given[0]) * H)
        call, _kept = _call(plan, x, given, states, values, u)
        plan.library.cfc_forward(call)
        ctx.save_for_backward(x, states, values, u, *given)
        ctx.plan = plan
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """Run the steps backwards; gradients of weights are products over all steps at once."""
        plan: Plan = ctx.plan
        x, states, values, u, *given = ctx.saved_tensors
        spans, mask, time_mask, _, _, *maps = given
        call, _kept = _call(plan, x, given, states, values, u)
        grads = grads.contiguous()
        d_values, d_u, d_initial = (torch.empty_like(part) for part in (values, u, states[0]))
        d_spans = torch.empty_like(spans) if ctx.needs_input_grad[3] else None
        closed = states.new_zeros(call.threads, 2, states.shape[2])
        call.grads, call.d_values, call.d_u = address(grads), address(d_values), address(d_u)
        call.d_initial, call.d_spans, call.d_closed = address(d_initial), address(d_spans), address(closed)
        plan.library.cfc_backward(call)

        ends = [*d_values.flatten(1, 2), d_u.flatten(0, 1)]
        below = [torch.cat([x, states[:-1]], 2).flatten(0, 1), *values.flatten(1, 2)]
        d_maps = [part for d, z in zip(ends, below, strict=True) for part in (d.t() @ z, d.sum(0))]
        heads = _Heads(plan.mode, plan.span, spans is not None, mask, time_mask)
        d_maps[-2:] = heads.split(*d_maps[-2:], states.shape[2])
        d_x = None
        if ctx.needs_input_grad[1]:
            first = maps[0] if plan.layers else heads.merge(maps[::2])
            d_x = (ends[0] @ first[:, : x.shape[2]]).view_as(x)
        d_a, d_w_tau = closed.sum(0).unsqueeze(1) if plan.mode == "pure" else (None, None)
        return None, d_x, d_initial, d_spans, None, None, d_a, d_w_tau, *d_maps


@dataclass(frozen=True)
class _Heads:
    """The heads as one map: ff1, ff2, the gate and, with spans of the samples, what the span multiplies."""

    mode: str
    span: float
    spans: bool
    mask: Tensor | None
    time_mask: Tensor | None

    def merge(self, weights: Sequence[Tensor]) -> Tensor:
        if self.mode == "pure":
            return _masked(weights[0], self.mask)
        f1, f2 = (_masked(weight, self.mask) for weight in weights[:2])
        a, b = (_masked(weight, self.time_mask) for weight in weights[2:])
        return torch.cat([f1, f2, b, a] if self.spans else [f1, f2, torch.add(b, a, alpha=self.span)])

    def split(self, weight: Tensor, bias: Tensor, units: int) -> list[Tensor]:
        """Return the gradients of weight and bias of each head from those of the one map."""
        weights, biases = weight.split(units), bias.split(units)
        if self.mode == "pure":
            return [_masked(weight, self.mask), bias]
        last = -1 if self.spans else 2
        factor = 1.0 if self.spans else self.span
        return [
            *(_masked(weights[0], self.mask), biases[0]),
            *(_masked(weights[1], self.mask), biases[1]),
            *(_masked(weights[last] * factor, self.time_mask), biases[last] * factor),
            *(_masked(weights[2], self.time_mask), biases[2]),
        ]


def _masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    return weight if mask is None else weight * mask


def _head_count(plan: Plan, spans: Tensor | None) -> int:
    if plan.mode == "pure":
        return 1
    return 3 if spans is None else 4


def _call(
    plan: Plan, x: Tensor, given: Sequence[Tensor | None], states: Tensor, values: Tensor, u: Tensor
) -> tuple[CfCCall, object]:
    """Return what the kernels take, and what must live until they have run."""
    spans, mask, time_mask, a, w_tau, *maps = given
    backbone, heads = addresses(maps[: 2 * plan.layers]), addresses(maps[2 * plan.layers :])
    activation, gain, scale = _ACTIVATIONS[plan.activation]
    call = CfCCall(
        *(*x.shape, states.shape[2], plan.layers, values.shape[3], _MODES[plan.mode], activation),
        max(1, min(torch.get_num_threads(), x.shape[1])),
        *(gain, scale, plan.span, 0.0),
        *(address(x), address(spans), ctypes.addressof(backbone), ctypes.addressof(heads)),
        *map(address, (mask, time_mask, a, w_tau, states, values, u)),
    )
    return call, (backbone, heads)
