"""What the fast path cannot serve, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from liquid_train.nn.activations import ACTIVATIONS, common_activation
from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.ltc_cell import LTCCell
from liquid_train.nn.memory_cell import MemoryCell
from liquid_train.nn.shapes import cfc_misfit, inner_modules, ltc_misfit, wired_misfit
from liquid_train.nn.watch import remember, remembered
from liquid_train.nn.wired_cfc_cell import WiredCfCCell

Cell = CfCCell | WiredCfCCell | LTCCell

_CELLS = (CfCCell, WiredCfCCell, LTCCell)
_LAYERS = frozenset({CfCCell})
_ACTIVATIONS = frozenset(ACTIVATIONS.values())
_DTYPES = (torch.float32, torch.float64)
_PLAIN = (Tensor, nn.Parameter)

# PyTorch before 2.7 does not tell exporting from compiling.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def why_not(
    cell: Cell, memory: MemoryCell | None, inputs: Tensor, spans: Tensor | float, state: tuple[Tensor, ...]
) -> str | None:
    """Return why the fast path cannot run this call, or None when it can."""
    if _is_exporting():
        return "the call is being exported"
    if torch._C._get_tracing_state() is not None:
        return "the call is being traced"
    if inputs.numel() == 0:
        return "the batch is empty"
    if memory is not None:
        return "mixed_memory=True puts a memory cell between the steps"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform is active"
    if type(cell) not in _CELLS:
        return f"{type(cell).__name__} is a cell of your own"
    if not torch.compiler.is_compiling() and _has_any_global_hook():
        return "hooks are registered for all modules, which only the plain path calls"
    if "_is_replica" in vars(cell):
        return "nn.DataParallel has put copies in place of the parameters"
    served = None if torch.compiler.is_compiling() else remembered(cell)
    if served is None:
        served = _look(cell)
        if isinstance(served, str):
            return served
        if not torch.compiler.is_compiling():
            remember(cell, served)
    return _of_call(cell, served, inputs, spans, state)


@dataclass(frozen=True)
class _Served:
    """A cell that can be served: what its tensors have in common, and whether one is of inference mode."""

    dtype: torch.dtype
    device: torch.device
    inference: bool


def _look(cell: Cell) -> _Served | str:
    """Look at the cell itself, whatever it is called with."""
    modules = [cell, *inner_modules(cell)]
    reason = _of_modules(cell, modules)
    if reason is not None:
        return reason
    tensors = _tensors(modules)
    first = tensors[0][1]
    if first.device.type == "meta":
        return "the parameters are on the meta device"
    if first.dtype not in _DTYPES:
        return f"the first parameter has dtype {first.dtype}: it serves float32, float64 and autocast"
    reason = _of_tensors(tensors, first.dtype, first.device) or _misfit(cell)
    if reason is not None:
        return reason
    return _Served(first.dtype, first.device, _of_inference(tensor for _, tensor in tensors))


def _of_modules(cell: Cell, modules: list[Any]) -> str | None:
    inner = _LAYERS if type(cell) is WiredCfCCell else _ACTIVATIONS
    for module in modules:
        if _has_hooks(module):
            return f"{_name(cell, module)} has hooks, which only the plain path calls"
        kind = type(module)
        if kind is nn.Linear:
            if module.bias is None:
                return f"{_name(cell, module)} has no bias"
            if not module._parameters.keys() >= {"weight", "bias"}:
                return f"{_name(cell, module)} has a tensor in place of a parameter"
        elif kind is nn.Dropout:
            if module.training and module.p > 0:
                return f"backbone_dropout={module.p} draws anew at each step"
        elif kind is nn.Sequential:
            if common_activation(module) is None:
                return f"{_name(cell, module)} has activations that only the plain path knows"
        elif module is not cell and kind not in inner:
            return f"{_name(cell, module)} is a {kind.__name__}, which only the plain path calls"
        elif kind in _CELLS and any(isinstance(value, Tensor) for value in vars(module).values()):
            return f"{_name(cell, module)} has a tensor in place of a parameter"
    return None


def _name(cell: Cell, wanted: nn.Module) -> str:
    return next(name for name, module in cell.named_modules() if module is wanted) or "the cell"


def _tensors(modules: list[nn.Module]) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor | None]] = []
    for module in modules:
        found += module._parameters.items()
        found += module._buffers.items()
    return [(name, tensor) for name, tensor in found if tensor is not None]


def _of_tensors(
    tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype, device: torch.device
) -> str | None:
    for name, tensor in tensors:
        if type(tensor) not in _PLAIN:
            return f"{name} is a {type(tensor).__name__}"
        if tensor.dtype != dtype:
            return f"{name} has dtype {tensor.dtype} but the first parameter has {dtype}"
        if tensor.device != device:
            return f"{name} is on {tensor.device} but the first parameter is on {device}"
    return None


def _misfit(cell: Cell) -> str | None:
    if isinstance(cell, LTCCell):
        return ltc_misfit(cell)
    if isinstance(cell, CfCCell):
        return cfc_misfit(cell)
    return wired_misfit(cell)


def _of_inference(tensors: Iterable[Tensor]) -> bool:
    # Compilers do not know the question.
    return not torch.compiler.is_compiling() and any(tensor.is_inference() for tensor in tensors)


def _of_call(
    cell: Cell, served: _Served, inputs: Tensor, spans: Tensor | float, state: tuple[Tensor, ...]
) -> str | None:
    given = [("hx", part) for part in state]
    if isinstance(spans, Tensor):
        given.append(("timespans", spans))
    reason = _of_tensors(given, served.dtype, served.device)
    if reason is not None:
        return reason
    if torch.is_grad_enabled() and (
        served.inference or _of_inference((inputs, *(tensor for _, tensor in given)))
    ):
        return "a tensor was made in inference mode, where autograd cannot keep it"
    if type(inputs) not in _PLAIN:
        return f"the input is a {type(inputs).__name__}"
    if inputs.device != served.device:
        return f"the input is on {inputs.device} but the parameters are on {served.device}"
    if inputs.dtype != served.dtype and not torch.is_autocast_enabled(served.device.type):
        return f"input has dtype {inputs.dtype} but the parameters have {served.dtype}"
    sizes = inputs.shape[-1], state[0].shape[-1]
    if sizes != (cell.sensory_size, cell.state_size):
        return f"the cell takes {cell.sensory_size} channels and {cell.state_size} units, not {sizes}"
    return None


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        # A method that is put around the class's own does what a hook does.
        "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
