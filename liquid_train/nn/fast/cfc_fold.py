"""The parameters of a CfC as its loops take them: maps merged, constants folded into them; and the way back.

Shapes: T steps, B batch, C input channels, H hidden units, F width of the first map.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast.activations import ACTIVATIONS, Activation
from liquid_train.nn.fast.calls import CfCPlan

Map = tuple[Tensor, Tensor]
"""Weight and bias."""


def activation_of(plan: CfCPlan) -> Activation | None:
    """Return the activation of the backbone, or None without one."""
    return ACTIVATIONS[plan.activation] if plan.layers else None


def fold(
    plan: CfCPlan,
    x: Tensor,
    h: Tensor,
    spans: Tensor | None,
    mask: Tensor | None,
    time_mask: Tensor | None,
    a: Tensor | None,
    w_tau: Tensor | None,
    *flat: Tensor,
) -> tuple[Any, ...]:
    """Return what ``run_steps`` of the loops takes from ``x`` on; ``CfCPlan`` has the tensors."""
    gated = plan.mode != "pure"
    maps = _pairs(flat[: 2 * plan.layers])
    maps.append(_merged(plan, spans is not None, _pairs(flat[2 * plan.layers :]), mask, time_mask))
    (weight, bias), *rest = _folded(maps, activation_of(plan))
    inputs, recurrent = weight.split([x.shape[2], h.shape[1]], 1)
    start = h
    if gated:
        # The state runs as (h + 1) / 2.
        bias = bias - recurrent.sum(1)
        recurrent, start = 2 * recurrent, 0.5 * h + 0.5
    # Not F.linear: its gradient of the weight takes several times as long for few inputs.
    projected = torch.addmm(bias, x.flatten(0, 1), inputs.t()).unflatten(0, x.shape[:2])
    return projected, start, spans, a, w_tau, recurrent, *chain(*rest)


def unfold(
    plan: CfCPlan,
    tensors: Sequence[Any],
    found: Sequence[Any],
    d_x: bool,
) -> list[Tensor | None]:
    """Return the gradients of the tensors of ``fold`` from those of what it returns; of ``x`` only if asked."""
    x, _, spans, mask, time_mask, *_ = tensors
    d_projected, d_start, d_spans, d_a, d_w_tau, d_recurrent, *d_flat = found
    rows, gated = d_projected.flatten(0, 1), plan.mode != "pure"
    d_bias = rows.sum(0)
    if gated:
        d_recurrent, d_start = 2 * d_recurrent - d_bias.unsqueeze(1), 0.5 * d_start
    # This way round: the other takes up to four times as long for few units.
    d_inputs = (x.flatten(0, 1).t() @ rows).t()
    *d_maps, d_heads = _unfolded(
        [(torch.cat([d_inputs, d_recurrent], 1), d_bias), *_pairs(d_flat)], activation_of(plan)
    )
    d_maps += _parted(plan, spans is not None, d_heads, mask, time_mask)
    d_input = None
    if d_x:
        weight = _first_weight(plan, *tensors)[:, : x.shape[2]]
        d_input = (rows @ weight).unflatten(0, x.shape[:2])
    return [d_input, d_start, d_spans, None, None, d_a, d_w_tau, *chain(*d_maps)]


def _first_weight(plan: CfCPlan, *tensors: Any) -> Tensor:
    _, _, spans, mask, time_mask, _, _, *flat = tensors
    if plan.layers == 0:
        return _merged(plan, spans is not None, _pairs(flat), mask, time_mask)[0]
    weight: Tensor = flat[0]
    return weight * ACTIVATIONS[plan.activation].scale


def _pairs(flat: Any) -> list[Map]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _merged(
    plan: CfCPlan, spans: bool, heads: list[Map], mask: Tensor | None, time_mask: Tensor | None
) -> Map:
    """Merge the heads into one map; a span of every step joins the gate's two heads."""
    if plan.mode == "pure":
        ((weight, bias),) = heads
        return masked(weight, mask), bias
    f1, f2, (a, a_bias), (b, b_bias) = heads
    weights, biases = [2 * masked(f[0], mask) for f in (f1, f2)], [2 * f[1] for f in (f1, f2)]
    a, b = masked(a, time_mask), masked(b, time_mask)
    if spans:
        weights += [b, a]
        biases += [b_bias, a_bias]
    else:
        weights.append(b + plan.span * a)
        biases.append(b_bias + plan.span * a_bias)
    return torch.cat(weights), torch.cat(biases)


def _parted(
    plan: CfCPlan, spans: bool, merged: Map, mask: Tensor | None, time_mask: Tensor | None
) -> list[Map]:
    """Return the gradients of the heads from those of their one map: the way back of ``_merged``."""
    if plan.mode == "pure":
        return [(masked(merged[0], mask), merged[1])]
    units = len(merged[1]) // (4 if spans else 3)
    f1, f2, *gate = zip(*(part.split(units) for part in merged), strict=True)
    b, a = gate if spans else (gate[0], [plan.span * part for part in gate[0]])
    return [
        *((2 * masked(weight, mask), 2 * bias) for weight, bias in (f1, f2)),
        *((masked(weight, time_mask), bias) for weight, bias in (a, b)),
    ]


def masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights that a mask keeps."""
    return weight if mask is None else weight * mask


def _folded(maps: list[Map], activation: Activation | None) -> list[Map]:
    """Move the activation's constants into the maps before and after it."""
    folded = []
    for (weight, bias), (shift, factor, scale) in zip(maps, _constants(len(maps), activation), strict=True):
        if shift != 0.0:
            bias = torch.add(bias, weight.sum(1), alpha=shift)
        folded.append((_times(weight, factor), _times(bias, scale)))
    return folded


def _unfolded(maps: list[Map], activation: Activation | None) -> list[Map]:
    """Return the gradients of maps from those of what ``_folded`` made of them."""
    unfolded = []
    for (weight, bias), (shift, factor, scale) in zip(maps, _constants(len(maps), activation), strict=True):
        weight, bias = _times(weight, factor), _times(bias, scale)
        if shift != 0.0:
            weight = torch.add(weight, bias.unsqueeze(1), alpha=shift)
        unfolded.append((weight, bias))
    return unfolded


def _constants(count: int, activation: Activation | None) -> Iterator[tuple[float, float, float]]:
    """Yield for each map the shift of what it reads, and the factors of its weight and bias."""
    for index in range(count):
        shift, gain = (0.0, 1.0) if index == 0 or activation is None else (activation.shift, activation.gain)
        scale = 1.0 if index == count - 1 or activation is None else activation.scale
        yield shift, gain * scale, scale


def _times(tensor: Tensor, factor: float) -> Tensor:
    return tensor if factor == 1.0 else tensor * factor
