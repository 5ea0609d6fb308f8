"""Copies of a layer's weights in the form that streams read.

Shapes: C input channels, H hidden units, K width of a backbone layer, M motor neurons, N heads, S sources of
synapses (C or H). A map of n numbers to m is ``[n + 1, m]``, its last row the bias.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from liquid_train.nn.activations import ACTIVATIONS, common_activation
from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.ltc_cell import LTCCell
from liquid_train.nn.memory_cell import MemoryCell
from liquid_train.nn.shapes import cfc_linears, cfc_misfit, ltc_misfit, wired_misfit
from liquid_train.nn.wired_cfc_cell import WiredCfCCell

if TYPE_CHECKING:
    from liquid_train.nn.layer import LiquidLayer

Array = npt.NDArray[Any]

_TANH = {"LeCunTanh": (1.7159, 0.666), "Tanh": (1.0, 1.0)}
_ACTIVATIONS = {"LeCunTanh": "tanh", "Tanh": "tanh", "ReLU": "relu", "SiLU": "silu", "GELU": "gelu"}

_CELLS = (CfCCell, WiredCfCCell, LTCCell, MemoryCell)
_KINDS = frozenset((*_CELLS, nn.Linear, nn.Sequential, nn.Dropout, *ACTIVATIONS.values()))
_MAPS = (nn.Identity, nn.Linear)


@dataclass(frozen=True)
class CfCWeights:
    """The weights of a CfC cell; factors of its activation are in the maps before and after it.

    Attributes:
        inputs: Input channels C.
        units: Hidden units H.
        mode: As the cell's.
        activation: ``"tanh"``, ``"relu"``, ``"silu"`` or ``"gelu"``.
        backbone: The maps of the backbone's layers.
        heads: ff1, ff2, time_b and time_a as one map to ``[N·H]``, masked; or ff1.
        a: ``A`` of mode ``pure`` ``[H]``, otherwise empty.
        rate: ``|w_tau|`` likewise.
    """

    inputs: int
    units: int
    mode: str
    activation: str
    backbone: tuple[Array, ...]
    heads: Array
    a: Array
    rate: Array


@dataclass(frozen=True)
class Synapses:
    """Synapses of an LTC cell; how far they are open is ``σ(slope · v - offset)``.

    Attributes:
        g: Conductance when open, ``[S, H]``, zero where there is no synapse.
        current: What then flows at zero potential, ``[S, H]``.
        slope: ``[S, H]``.
        offset: ``[S, H]``.
    """

    g: Array
    current: Array
    slope: Array
    offset: Array


@dataclass(frozen=True)
class LTCWeights:
    """The weights of an LTC cell, positive where a softplus makes them so.

    Attributes:
        unfolds: Solver parts of a step.
        cm: ``[H]``.
        leak: ``gleak`` with epsilon, then ``gleak · vleak``, ``[2H]``.
        sensory: Synapses from the inputs as they come: the input mapping is in them.
        neural: Synapses between neurons.
        output: The output mapping of the motor neurons, ``[2, M]``: scale and shift.
    """

    unfolds: int
    cm: Array
    leak: Array
    sensory: Synapses
    neural: Synapses
    output: Array


def check_layer(layer: "LiquidLayer") -> None:
    """Refuse a layer with modules of somebody's own in it, whose doing is in no weights, or of other sizes.

    Raises:
        ValueError: If there is one.
    """
    for part in ("rnn_cell", "lstm", "fc"):
        kinds = _MAPS if part == "fc" else _KINDS
        child: nn.Module | None = getattr(layer, part)
        for name, module in child.named_modules(prefix=part) if child is not None else ():
            if type(module) not in kinds:
                _check(f"{name} is a {type(module).__name__}")
    cell, fc, width = layer.rnn_cell, layer.fc, layer.rnn_cell.output_size
    given, sizes = (cell.sensory_size, cell.state_size), (layer.input_size, layer.state_size)
    if given != sizes:
        _check(f"rnn_cell takes {given[0]} channels and {given[1]} units, the layer {sizes}")
    shape = tuple(fc.weight.shape) if isinstance(fc, nn.Linear) else (width, width)
    if shape != (layer.output_size, width):
        _check(f"fc maps {shape[1]} numbers to {shape[0]}, not {width} to {layer.output_size}")
    if isinstance(cell, WiredCfCCell):
        _check(wired_misfit(cell))


def cfc_weights(cell: CfCCell | WiredCfCCell) -> list[CfCWeights]:
    """Return the weights of a cell's layers: one, without a wiring."""
    parts = [cell] if isinstance(cell, CfCCell) else list(cell.children())
    with torch.no_grad():
        return [_cfc(part) for part in parts if isinstance(part, CfCCell)]


def ltc_weights(cell: LTCCell) -> LTCWeights:
    """Return the weights of an LTC cell."""
    _check(ltc_misfit(cell))
    with torch.no_grad():
        gleak = cell._positive(cell.gleak)
        scale, shift = _mapping(cell.input_w, cell.input_b, cell.sensory_w[:, 0])
        # A source that is scaled and shifted: its synapses' slope and offset take that up.
        slope = cell.sensory_sigma * scale.unsqueeze(1)
        shifted = cell.sensory_sigma * (cell.sensory_mu - shift.unsqueeze(1))
        sensory_w = cell._positive(cell.sensory_w) * cell.sensory_sparsity_mask
        w = cell._positive(cell.w) * cell.sparsity_mask
        output = torch.stack(_mapping(cell.output_w, cell.output_b, gleak[: cell.motor_size]))
        return LTCWeights(
            unfolds=cell.ode_unfolds,
            cm=frozen(cell._positive(cell.cm)),
            leak=frozen(torch.cat([gleak + cell.epsilon, gleak * cell.vleak])),
            sensory=_synapses(sensory_w, cell.sensory_erev, slope, shifted),
            neural=_synapses(w, cell.erev, cell.sigma, cell.sigma * cell.mu),
            output=frozen(output),
        )


def linear_map(linear: nn.Linear) -> Array:
    """Return a Linear's map."""
    with torch.no_grad():
        return frozen(_map(linear))


def frozen(tensor: Tensor) -> Array:
    """Return a copy as a C-contiguous array."""
    array: Array = np.array(tensor.detach().cpu().numpy(), order="C")
    return array


def _cfc(cell: CfCCell) -> CfCWeights:
    linears, _ = cfc_linears(cell)
    name = "Tanh" if cell.backbone is None else common_activation(cell.backbone)
    if name is None:
        raise ValueError(
            "the backbone cannot be streamed: give it one activation that CfC names, after every layer"
        )
    _check(cfc_misfit(cell))
    gain, scale = _TANH.get(name, (1.0, 1.0))
    maps, factor = [], 1.0
    for linear in linears:
        maps.append(frozen(_map(linear, factor) * scale))
        factor = gain
    pure = cell.mode == "pure"
    heads = [_map(cell.ff1, factor, cell.sparsity_mask)]
    if not pure:
        heads.append(_map(cell.ff2, factor, cell.sparsity_mask))
        mask = cell.sparsity_mask if cell.strict_wiring else None
        heads += [_map(head, factor, mask) for head in (cell.time_b, cell.time_a)]
    none = heads[0].new_empty(0)
    return CfCWeights(
        inputs=cell.input_size,
        units=cell.hidden_size,
        mode=cell.mode,
        activation=_ACTIVATIONS[name],
        backbone=tuple(maps),
        heads=frozen(torch.cat(heads, 1)),
        a=frozen(cell.A[0] if pure else none),
        rate=frozen(cell.w_tau[0].abs() if pure else none),
    )


def _check(misfit: str | None) -> None:
    if misfit:
        raise ValueError(f"{misfit}, which cannot be streamed: run the layer step by step")


def _map(linear: nn.Linear, factor: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Return the map of a Linear whose inputs come without a factor that they had."""
    weight = linear.weight if mask is None else linear.weight * mask
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias
    return torch.cat([weight.t() * factor, bias.unsqueeze(0)])


def _mapping(scale: Tensor | None, shift: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.ones_like(like) if scale is None else scale,
        torch.zeros_like(like) if shift is None else shift,
    )


def _synapses(w: Tensor, erev: Tensor, slope: Tensor, shifted: Tensor) -> Synapses:
    return Synapses(frozen(w), frozen(w * erev), frozen(slope), frozen(shifted))
