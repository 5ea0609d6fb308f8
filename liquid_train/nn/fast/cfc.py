"""From the parameters of a CfC to what ``CfCFunction`` takes: maps merged, constants folded into them.

Shapes: T steps, B batch, C input channels, H hidden units, K features that the heads read.
"""

import torch
from torch import Tensor, nn

from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.fast.activations import ACTIVATIONS, Activation
from liquid_train.nn.fast.cfc_function import CfCFunction, run_steps


def run_cfc(cell: CfCCell, x: Tensor, h: Tensor, spans: Tensor | float) -> Tensor:
    """Run a cell over ``x`` ``[T, B, C]`` from state ``h`` ``[B, H]`` and return all states ``[T, B, H]``.

    ``spans`` is ``[T, B, 1]`` or one number.
    """
    gated = cell.mode != "pure"
    times, span = (spans, 1.0) if isinstance(spans, Tensor) else (None, spans)
    linears, activation = backbone(cell)
    maps: list[tuple[Tensor, Tensor]] = [(linear.weight, linear.bias) for linear in linears]
    maps.append(_heads(cell, times, span))
    if activation is not None:
        maps = _fold(maps, activation)
    (weight, bias), *rest = maps
    inputs, recurrent = weight.split([cell.input_size, cell.hidden_size], 1)
    if gated:
        # The state runs as (h + 1) / 2.
        bias = bias - recurrent.sum(1)
        recurrent, h = 2 * recurrent, 0.5 * h + 0.5
    # Not F.linear: its gradient of the weight takes several times as long for few inputs.
    projected = torch.addmm(bias, x.flatten(0, 1), inputs.t()).unflatten(0, x.shape[:2])
    a, w_tau = (None, None) if gated else (cell.A, cell.w_tau)
    flat = [part for pair in rest for part in pair]
    given = cell.mode, activation, span, projected, h, times, a, w_tau, recurrent, *flat
    if torch.is_grad_enabled() and any(isinstance(part, Tensor) and part.requires_grad for part in given):
        states: Tensor = CfCFunction.apply(*given)  # type: ignore[no-untyped-call]
    else:
        states = run_steps(False, *given)[0][1:]
    return states.mul(2).sub_(1) if gated else states


def backbone(cell: CfCCell) -> tuple[list[nn.Linear], Activation | None]:
    """Return the linear maps of a cell's backbone and the activation after each; none without a backbone."""
    if cell.backbone is None:
        return [], None
    linears = [module for module in cell.backbone if isinstance(module, nn.Linear)]
    return linears, ACTIVATIONS[type(cell.backbone[1]).__name__]


def _heads(cell: CfCCell, times: Tensor | None, span: float) -> tuple[Tensor, Tensor]:
    """Merge the heads into one map; a span of every step joins the gate's two heads."""
    mask = cell.sparsity_mask
    f1 = _masked(cell.ff1, mask)
    if cell.mode == "pure":
        return f1, cell.ff1.bias
    time_mask = mask if cell.strict_wiring else None
    a, b = _masked(cell.time_a, time_mask), _masked(cell.time_b, time_mask)
    weights, biases = [2 * f1, 2 * _masked(cell.ff2, mask)], [2 * cell.ff1.bias, 2 * cell.ff2.bias]
    if times is None:
        weights.append(torch.add(b, a, alpha=span))
        biases.append(torch.add(cell.time_b.bias, cell.time_a.bias, alpha=span))
    else:
        weights += [b, a]
        biases += [cell.time_b.bias, cell.time_a.bias]
    return torch.cat(weights), torch.cat(biases)


def _masked(linear: nn.Linear, mask: Tensor | None) -> Tensor:
    return linear.weight if mask is None else linear.weight * mask


def _fold(maps: list[tuple[Tensor, Tensor]], activation: Activation) -> list[tuple[Tensor, Tensor]]:
    """Move the activation's constants into the maps before and after it."""
    folded = []
    last = len(maps) - 1
    for index, (weight, bias) in enumerate(maps):
        if index > 0 and activation.shift != 0.0:
            bias = torch.add(bias, weight.sum(1), alpha=activation.shift)
        factor = (activation.gain if index > 0 else 1.0) * (activation.scale if index < last else 1.0)
        weight = weight if factor == 1.0 else weight * factor
        bias = bias if index == last or activation.scale == 1.0 else bias * activation.scale
        folded.append((weight, bias))
    return folded
