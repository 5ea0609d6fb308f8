"""How the kernels read the cells' tensors for one step."""

import ctypes
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from liquid_train.nn.activations import common_activation
from liquid_train.nn.native.library import Library
from liquid_train.nn.native.step import Place, Step
from liquid_train.nn.native.structures import (
    ACTIVATIONS,
    MODES,
    CfCCall,
    LTCCall,
    SynapsesCall,
    address,
    addresses,
)
from liquid_train.nn.shapes import cfc_linears, cfc_misfit, inner_modules, ltc_misfit

if TYPE_CHECKING:
    from liquid_train.nn.cfc_cell import CfCCell
    from liquid_train.nn.ltc_cell import LTCCell

_CELL = ("cm", "gleak", "vleak")
_SETTINGS = ("ode_unfolds", "epsilon", "implicit_param_constraints")
_MAPPINGS = ("input_w", "input_b", "output_w", "output_b")
_SYNAPSES = ("w", "mu", "sigma", "erev")


def cfc_step(cell: "CfCCell", library: Library) -> Step:
    """Return the step of a CfC cell."""
    backbone, heads = cfc_linears(cell)
    pure = cell.mode == "pure"
    activation = "ReLU" if cell.backbone is None else common_activation(cell.backbone)
    places: list[Place] = [(m._parameters, name) for m in (*backbone, *heads) for name in ("weight", "bias")]
    places += [(cell._parameters, name) for name in (("A", "w_tau") if pure else ())]
    masked = cell.sparsity_mask is not None
    watched: list[Place] = []
    (places if masked else watched).append((cell._buffers, "sparsity_mask"))
    parts = map(vars, inner_modules(cell))
    watched += [(part, name) for part in parts for name in ("approximate", "p") if name in part]

    def fill(cell: "CfCCell", tensors: list[Tensor]) -> tuple[CfCCall, object] | None:
        if cfc_misfit(cell):
            return None
        split = 2 * len(backbone)
        first, second = addresses(tensors[:split]), addresses(tensors[split : split + 2 * len(heads)])
        rest = tensors[split + 2 * len(heads) :]
        mask = rest[-1] if masked else None
        number, gain, scale = ACTIVATIONS[activation or "ReLU"]
        call = CfCCall(
            C=cell.input_size,
            H=cell.hidden_size,
            L=len(backbone),
            K=len(tensors[0]) if backbone else 0,
            mode=MODES[cell.mode],
            activation=number,
            gain=gain,
            scale=scale,
            backbone=ctypes.addressof(first),
            heads=ctypes.addressof(second),
            mask=address(mask),
            time_mask=address(mask) if cell.strict_wiring else None,
            a=address(rest[0]) if pure else None,
            w_tau=address(rest[1]) if pure else None,
        )
        return call, (first, second)

    step = Step(cell, places, watched, ("mode", "strict_wiring"), fill, library.cfc_step)
    drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in cell.modules())
    step.served = step.served and activation is not None and not drops
    return step


def ltc_step(cell: "LTCCell", library: Library) -> Step:
    """Return the step of an LTC cell."""
    names = [*_CELL, *(f"sensory_{name}" for name in _SYNAPSES), *_SYNAPSES]
    mapped = [name for name in _MAPPINGS if getattr(cell, name) is not None]
    places: list[Place] = [(cell._parameters, name) for name in (*names, *mapped)]
    places += [(cell._buffers, name) for name in ("sensory_sparsity_mask", "sparsity_mask")]

    def fill(cell: "LTCCell", tensors: list[Tensor]) -> tuple[LTCCall, object] | None:
        if ltc_misfit(cell):
            return None
        found: list[Any] = [address(tensor) for tensor in tensors]
        sensory_mask, mask = found[-2:]
        call = LTCCall(
            C=cell.sensory_size,
            H=cell.state_size,
            M=cell.motor_size,
            unfolds=cell.ode_unfolds,
            epsilon=cell.epsilon,
            constrain=int(cell.implicit_param_constraints),
            sensory=SynapsesCall(*found[3:7], sensory_mask),
            neural=SynapsesCall(*found[7:11], mask),
            **dict(zip((*_CELL, *mapped), (*found[:3], *found[11:-2]), strict=True)),
        )
        return call, None

    settings = [name for name in (*_SETTINGS, *_MAPPINGS) if name in vars(cell)]
    return Step(cell, places, (), settings, fill, library.ltc_step, cell.motor_size)
