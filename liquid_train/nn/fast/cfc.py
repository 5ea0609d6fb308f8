"""Run a CfC cell over whole sequences in tensor operations, or with the kernels of an accelerator.

Shapes: T steps, B batch, H hidden units.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast.calls import CfCPlan
from liquid_train.nn.fast.cfc_fold import activation_of, fold
from liquid_train.nn.fast.cfc_function import CfCFunction, CfCLoops
from liquid_train.nn.fast.cfc_steps import Holding
from liquid_train.nn.fast.compiled import operators
from liquid_train.nn.fast.single_cfc import run_single_cfc, serves_single
from liquid_train.nn.gpu.choice import cfc_loops


def run_cfc(plan: CfCPlan, *tensors: Any, held: Sequence[int] = ()) -> Tensor:
    """Return the states after each step ``[T, B, H]``; ``CfCPlan`` has the tensors.

    In the first steps, one for each number in ``held``, units from that number on keep their state.
    """
    if not torch.compiler.is_compiling() and serves_single(plan, *tensors):
        return run_single_cfc(plan, *tensors, held=held)
    # One copy that the projection and a replay keep.
    x, *rest = tensors[0].contiguous(), *tensors[1:]
    if torch.compiler.is_compiling():
        name = plan.activation if plan.layers else None
        states = operators.call("cfc_steps", (plan.mode, name, plan.span), fold(plan, x, *rest))
        return states if plan.mode == "pure" else 2 * states - 1
    loops: CfCLoops = Holding(held)
    if not held:
        loops = cfc_loops(plan, x, rest[1] is not None)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (x, *rest)):
        trained: Tensor = CfCFunction.apply(loops, plan, held, x, *rest)  # type: ignore[no-untyped-call]
        return trained
    steps = (plan.mode, activation_of(plan), plan.span, *fold(plan, x, *rest))
    states = loops.run_steps(False, *steps)[0][1:]
    return states if plan.mode == "pure" else states.mul_(2).sub_(1)
