"""What the fast path cannot serve, and why."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from liquid_train.nn.activations import common_activation
from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.ltc_cell import LTCCell
from liquid_train.nn.memory_cell import MemoryCell
from liquid_train.nn.wired_cfc_cell import WiredCfCCell

Cell = CfCCell | WiredCfCCell | LTCCell

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
    if type(cell) not in (CfCCell, WiredCfCCell, LTCCell):
        return f"{type(cell).__name__} is a cell of your own"
    return _of_modules(cell) or _of_tensors(cell, inputs, spans, state)


def _of_modules(cell: Cell) -> str | None:
    for module in _modules(cell):
        if _has_hooks(module):
            return f"{_name(cell, module)} has hooks, which only the plain path calls"
        if isinstance(module, nn.Linear) and type(module) is not nn.Linear:
            return f"{_name(cell, module)} is a {type(module).__name__}, not a plain Linear"
        if isinstance(module, nn.Linear) and module._parameters["bias"] is None:
            return f"{_name(cell, module)} has no bias"
        if isinstance(module, nn.Dropout) and module.training and module.p > 0:
            return f"backbone_dropout={module.p} draws anew at each step"
        if isinstance(module, nn.Sequential) and common_activation(module) is None:
            return f"{_name(cell, module)} has activations that only the plain path knows"
    return None


def _modules(module: nn.Module) -> Iterator[nn.Module]:
    """Yield all modules, as ``module.modules()`` does in ten times the time."""
    yield module
    for child in module._modules.values():
        if child is not None:
            yield from _modules(child)


def _name(cell: Cell, wanted: nn.Module) -> str:
    return next(name for name, module in cell.named_modules() if module is wanted) or "the cell"


def _of_tensors(cell: Cell, inputs: Tensor, spans: Tensor | float, state: tuple[Tensor, ...]) -> str | None:
    tensors = list(_tensors(cell, spans, state))
    first = tensors[0][1]
    if first.device.type == "meta":
        return "the parameters are on the meta device"
    for name, tensor in tensors:
        if type(tensor) not in _PLAIN:
            return f"{name} is a {type(tensor).__name__}"
        if tensor.dtype not in _DTYPES:
            return f"{name} has dtype {tensor.dtype}: it serves float32, float64 and autocast"
        if tensor.dtype != first.dtype:
            return f"{name} has dtype {tensor.dtype} but the first parameter has {first.dtype}"
        if tensor.device != first.device:
            return f"{name} is on {tensor.device} but the first parameter is on {first.device}"
    kept = (inputs, *(tensor for _, tensor in tensors)) if torch.is_grad_enabled() else ()
    # Compilers do not know the question.
    if not torch.compiler.is_compiling() and any(tensor.is_inference() for tensor in kept):
        return "a tensor was made in inference mode, where autograd cannot keep it"
    if inputs.dtype != first.dtype and not torch.is_autocast_enabled(first.device.type):
        return f"input has dtype {inputs.dtype} but the parameters have {first.dtype}"
    return None


def _tensors(cell: Cell, spans: Tensor | float, state: tuple[Tensor, ...]) -> Iterator[tuple[str, Tensor]]:
    for module in _modules(cell):
        for named in (module._parameters, module._buffers):
            for name, tensor in named.items():
                if tensor is not None:
                    yield name, tensor
    yield from (("hx", part) for part in state)
    if isinstance(spans, Tensor):
        yield "timespans", spans


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
