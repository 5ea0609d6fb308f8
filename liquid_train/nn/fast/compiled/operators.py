"""The fast path as operators, ``torch.ops.liquid_train``, which a compiler takes as they are.

``torch.compile`` would compile the loop step by step, for minutes, and again for each length. Each runner has an
operator for its forward pass and one for its backward pass instead.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from liquid_train.nn.fast.compiled.kernels import CfCKernels, LTCKernels
from liquid_train.nn.fast.compiled.runner import Given, Runner
from liquid_train.nn.fast.compiled.steps import CfCSteps, LTCSteps
from liquid_train.nn.fast.heap import keep_freed


def call(name: str, constants: Sequence[Any], given: Given) -> Tensor:
    """Return the states ``[T, B, H]`` that the runner of that name makes of constants and tensors.

    The last constant is a time span. The operator takes it as a tensor, made by a product as compilers need
    it: then another number is no new program.
    """
    *constants, number = constants
    span = torch.ones((), dtype=torch.float64) * number
    tensors = [part for part in given if part is not None]
    places = [place for place, part in enumerate(given) if part is not None]
    operator = getattr(torch.ops.liquid_train, name)
    states: Tensor = operator(tensors, places, *constants, span, torch.is_grad_enabled())[0]
    return states


def _define(runner: Runner) -> None:
    """Define the operators of a runner.

    A list of tensors cannot hold None: an operator takes those that are there, and their places.
    """
    name = f"liquid_train::{runner.name}"
    given = f"Tensor[] tensors, int[] places, {runner.constants}, Tensor span, bool keep"

    def forward(tensors: list[Tensor], places: list[int], *constants: Any) -> list[Tensor]:
        keep_freed()
        *first, span, keep = constants
        return runner.forward((*first, span.item()), _at(places, tensors), keep)

    def empty(tensors: list[Tensor], places: list[int], *constants: Any) -> list[Tensor]:
        *first, span, keep = constants
        return runner.empty((*first, span), _at(places, tensors), keep)

    def back(
        grads: Tensor,
        made: list[Tensor],
        needed: list[bool],
        tensors: list[Tensor],
        places: list[int],
        *constants: Any,
    ) -> list[Tensor]:
        wanted = [place for place, need in zip(places, needed, strict=True) if need]
        full = _at(places, tensors)
        flags = [place in wanted for place in range(len(full))]
        *first, span, _ = constants
        found = runner.backward((*first, span.item()), full, made, grads, flags)
        chosen = [(full[place], found[place]) for place in wanted]
        return [torch.zeros_like(a) if b is None else _alone(b) for a, b in chosen if a is not None]

    def back_empty(
        grads: Tensor, made: list[Tensor], needed: list[bool], tensors: list[Tensor], *_: Any
    ) -> list[Tensor]:
        return [part.new_empty(part.shape) for part, need in zip(tensors, needed, strict=True) if need]

    def remember(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        tensors, *ctx.rest, span, ctx.keep = inputs
        kept = output[1:]
        ctx.mark_non_differentiable(*kept)
        made = output if runner.reads_states else kept
        ctx.save_for_backward(span, *made, *tensors)
        ctx.made = len(made)

    def differentiate(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
        span, *saved = ctx.saved_tensors
        made, tensors = saved[: ctx.made], saved[ctx.made :]
        needed = list(ctx.needs_input_grad[0])
        operator = getattr(torch.ops.liquid_train, f"{runner.name}_backward")
        found = iter(operator(grads[0], made, needed, tensors, *ctx.rest, span, ctx.keep))
        return [next(found) if need else None for need in needed], *(None for _ in ctx.rest), None, None

    operator = custom_op(name, forward, mutates_args=(), schema=f"({given}) -> Tensor[]")
    operator.register_fake(empty)
    operator.register_autograd(differentiate, setup_context=remember)
    schema = f"(Tensor grads, Tensor[] made, bool[] needed, {given}) -> Tensor[]"
    custom_op(f"{name}_backward", back, mutates_args=(), schema=schema).register_fake(back_empty)


def _alone(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor that shares its memory with no other, as results of an operator must."""
    alone = tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.is_contiguous()
    return tensor if alone else tensor.clone(memory_format=torch.contiguous_format)


def _at(places: Sequence[int], tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Put tensors at their places, None elsewhere. The last place is always taken."""
    full: list[Tensor | None] = [None] * (places[-1] + 1)
    for place, tensor in zip(places, tensors, strict=True):
        full[place] = tensor
    return full


for _runner in (CfCKernels(), LTCKernels(), CfCSteps(), LTCSteps()):
    _define(_runner)
