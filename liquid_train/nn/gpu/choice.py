"""Which calls the Triton kernels run: those on a GPU, in single precision, once the kernels have been checked."""

import functools
import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from liquid_train.nn.fast import cfc_steps
from liquid_train.nn.fast.activations import ACTIVATIONS
from liquid_train.nn.fast.calls import CfCPlan
from liquid_train.nn.fast.cfc_function import CfCFunction, Loops
from liquid_train.nn.fast.check import Run, agree, numbers
from liquid_train.nn.fast.ltc_function import LTCFunction

log = logging.getLogger(__name__)

Function = type[torch.autograd.Function]


def cfc_loops(plan: CfCPlan, x: Tensor, spans: bool) -> Loops | None:
    """Return the kernels if they run a CfC's call with input ``x``, or None.

    The first call of a kind compiles them and compares them with the loops in tensor operations; where that
    fails, they are not used, and one warning says why.
    """
    if not _could_run(x) or plan.layers > 1:
        return None
    right = _cfc_is_right(plan.mode, plan.layers, plan.activation, spans, x.device)
    return _triton_cfc() if right else None


def ltc_function(x: Tensor, unfolds: int, spans: bool) -> Function | None:
    """Return the kernels if they run an LTC's call with input ``x``, or None; see ``cfc_loops``."""
    if not _could_run(x) or not _ltc_is_right(unfolds, spans, x.device):
        return None
    return _triton_ltc()


def _could_run(x: Tensor) -> bool:
    """Triton's interpreter, which the tests use, takes tensors on a CPU."""
    place = x.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    switched_off = os.environ.get("LIQUID_TRAIN_NATIVE") == "0"
    return place and x.dtype == torch.float32 and not switched_off and _has_triton()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _triton_cfc() -> Loops:
    from liquid_train.nn.gpu import cfc_steps as kernels

    return kernels


def _triton_ltc() -> Function:
    from liquid_train.nn.gpu.ltc_function import TritonLTC

    return TritonLTC


@functools.cache
def _cfc_is_right(mode: str, layers: int, activation: str, spans: bool, device: torch.device) -> bool:
    T, B, H, K = 3, 5, 20, 24
    pure = mode == "pure"
    heads = H if pure else (4 if spans else 3) * H
    fixed = functools.partial(numbers, device=device)
    span = fixed(T, B, 1).abs() if spans else None
    closed = (fixed(1, H), fixed(1, H)) if pure else (None, None)
    maps = (fixed(heads, K), fixed(heads)) if layers else ()
    width = K if layers else heads
    tensors = fixed(T, B, width), fixed(B, H), span, *closed, fixed(width, H), *maps
    constants = mode, ACTIVATIONS[activation] if layers else None, 0.7

    def run(loops: Callable[[], Loops], *given: Any) -> Tensor:
        return cast(Tensor, CfCFunction.apply(loops(), *constants, *given))  # type: ignore[no-untyped-call]

    plain = functools.partial(run, lambda: cfc_steps)
    return _right(f"of a {mode} CfC", functools.partial(run, _triton_cfc), plain, tensors)


@functools.cache
def _ltc_is_right(unfolds: int, spans: bool, device: torch.device) -> bool:
    T, B, H = 2, 5, 20
    fixed = functools.partial(numbers, device=device)
    span = fixed(T, B, 1).abs() if spans else None
    base = fixed(T, B, 2 * H) + torch.cat([torch.full((H,), 3.0), torch.zeros(H)]).to(device)
    weights = torch.stack([fixed(H, H).abs(), fixed(H, H)])
    tensors = base, fixed(B, H), span, fixed(H).abs(), weights, fixed(H, H), fixed(H, H)

    def kernels(*given: Any) -> Tensor:
        return cast(Tensor, _triton_ltc().apply(unfolds, *given))

    def plain(*given: Any) -> Tensor:
        return cast(Tensor, LTCFunction.apply(unfolds, None, *given))  # type: ignore[no-untyped-call]

    return _right("of an LTC", kernels, plain, tensors)


def _right(name: str, kernels: Run, plain: Run, tensors: Sequence[Tensor | None]) -> bool:
    """Return whether kernels run here and agree with the loops; a warning says what is wrong."""
    try:
        if agree(kernels, plain, tensors):
            return True
        reason = "they give other numbers than PyTorch"
    except Exception as error:  # Triton raises errors of many kinds, and training must go on
        reason = _one_line(error)
    log.warning("CfC and LTC run without the Triton kernels %s, more slowly: %s", name, reason)
    return False


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
