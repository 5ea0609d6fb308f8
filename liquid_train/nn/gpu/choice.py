"""Which calls the Triton kernels run: those on a GPU, in single precision, once the kernels have been checked."""

import functools
import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from liquid_train.nn.fast import cfc_steps, ltc_steps
from liquid_train.nn.fast.calls import CfCPlan
from liquid_train.nn.fast.cfc_function import CfCFunction, CfCLoops
from liquid_train.nn.fast.check import Run, agree, cfc_tensors, numbers, undisturbed
from liquid_train.nn.fast.ltc_function import LTCFunction, LTCLoops
from liquid_train.nn.gpu.precision import TOLERANCES, precision
from liquid_train.nn.native.library import kernels_allowed

log = logging.getLogger(__name__)


def cfc_loops(plan: CfCPlan, x: Tensor, spans: bool) -> CfCLoops:
    """Return the kernels if they run a CfC's call, else the loops in tensor operations.

    The first call of a kind compiles the kernels and compares them; where that fails, one warning says why.

    Args:
        plan: The call's constants.
        x: A tensor that the call reads.
        spans: Whether each sample has spans of its own.
    """
    # The kernels have one backbone layer at most.
    if plan.layers <= 1 and _could_run(x):
        # The numbers of any span show whether they are right.
        kind = replace(plan, activation=plan.activation if plan.layers else "ReLU", span=0.7)
        with undisturbed(x.device):
            if _cfc_is_right(kind, spans, x.device, precision()):
                return _cfc_kernels()
    return cfc_steps


def ltc_loops(unfolds: int, x: Tensor, pairs: bool, spans: bool) -> LTCLoops:
    """Return the kernels if they run an LTC's call, else the loops in tensor operations; see ``cfc_loops``.

    Args:
        unfolds: Solver parts of a step.
        x: What does not depend on the state.
        pairs: Whether every pair of neurons counts as a synapse.
        spans: Whether each sample has spans of its own.
    """
    if pairs and _could_run(x):
        with undisturbed(x.device):
            if _ltc_is_right(unfolds, spans, x.device):
                return _ltc_kernels()
    return ltc_steps


def _could_run(x: Tensor) -> bool:
    # Triton's interpreter, which the tests use, takes tensors on a CPU.
    place = x.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    # What is being recorded can be neither compiled nor compared.
    ready = not (x.device.type == "cuda" and torch.cuda.is_current_stream_capturing())
    return place and ready and x.dtype == torch.float32 and kernels_allowed() and _has_triton()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _cfc_kernels() -> CfCLoops:
    from liquid_train.nn.gpu import cfc_steps as kernels

    return kernels


def _ltc_kernels() -> LTCLoops:
    from liquid_train.nn.gpu import ltc_steps as kernels

    return kernels


@functools.cache
def _cfc_is_right(plan: CfCPlan, spans: bool, device: torch.device, products: str) -> bool:
    def run(loops: Callable[[], CfCLoops], *given: Any) -> Tensor:
        states = CfCFunction.apply(loops(), plan, (), *given)  # type: ignore[no-untyped-call]
        return cast(Tensor, states)

    kernels, plain = (functools.partial(run, loops) for loops in (_cfc_kernels, lambda: cfc_steps))
    tensors = cfc_tensors(plan, spans, device)
    return _right(f"of a {plan.mode} CfC", kernels, plain, tensors, TOLERANCES[products])


@functools.cache
def _ltc_is_right(unfolds: int, spans: bool, device: torch.device) -> bool:
    T, B, H = 2, 5, 20
    fixed = functools.partial(numbers, device=device)
    span = fixed(T, B, 1).abs() if spans else None
    base = fixed(T, B, 2 * H) + torch.cat([torch.full_like(fixed(H), 3.0), torch.zeros_like(fixed(H))])
    weights = torch.stack([fixed(H, H).abs(), fixed(H, H)])
    tensors = base, fixed(B, H), span, fixed(H).abs(), weights, fixed(H, H), fixed(H, H)

    def run(loops: Callable[[], LTCLoops], *given: Any) -> Tensor:
        states = LTCFunction.apply(loops(), unfolds, None, *given)  # type: ignore[no-untyped-call]
        return cast(Tensor, states)

    kernels, plain = (functools.partial(run, loops) for loops in (_ltc_kernels, lambda: ltc_steps))
    return _right("of an LTC", kernels, plain, tensors, TOLERANCES["ieee"])


def _right(name: str, kernels: Run, plain: Run, tensors: Sequence[Tensor | None], tolerance: float) -> bool:
    """Return whether kernels run here and agree with the loops; a warning says what is wrong."""
    try:
        if agree(kernels, plain, tensors, tolerance):
            return True
        reason = "they give other numbers than PyTorch"
    except torch.cuda.OutOfMemoryError:  # no fault of the kernels
        raise
    except Exception as error:  # Triton raises errors of many kinds, and training must go on
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0]}"
    log.warning("CfC and LTC run without the Triton kernels %s, more slowly: %s", name, reason)
    return False
