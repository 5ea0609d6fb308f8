"""What runs sequences where a compiler must not look inside: kernels, and Functions without autograd.

Shapes: T steps, B batch, C input channels, H hidden units, S sources of synapses.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from liquid_train.nn.fast.activations import ACTIVATIONS, Activation
from liquid_train.nn.fast.calls import CfCPlan, LTCPlan
from liquid_train.nn.fast.cfc_function import CfCFunction, CfCLoops
from liquid_train.nn.fast.layout import choose_layout
from liquid_train.nn.fast.ltc_function import LTCFunction, LTCLoops
from liquid_train.nn.fast.native_cfc import (
    backward_cfc,
    empty_kept,
    empty_states,
    forward_cfc,
    readable,
)
from liquid_train.nn.fast.native_ltc import backward_ltc, forward_ltc
from liquid_train.nn.gpu.choice import cfc_loops, ltc_loops
from liquid_train.nn.native.library import Library, native

Given = Sequence[Tensor | None]


class Runner(Protocol):
    """What runs sequences.

    Attributes:
        name: Of the operator.
        constants: The schema of what it takes beside tensors. A number follows, the span of every step.
        reads_states: Whether its backward pass reads the states.
    """

    name: str
    constants: str
    reads_states: bool

    def empty(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """Return room for the states ``[T, B, H]``, and for what is kept for a backward pass."""

    def forward(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """Return the states, and what is kept."""

    def backward(
        self,
        constants: Sequence[Any],
        given: Given,
        made: Sequence[Tensor],
        grads: Tensor,
        needed: list[bool],
    ) -> Sequence[Tensor | None]:
        """Return the gradients of the tensors, at least of the needed ones.

        ``made`` is what was kept, after the states if they are read.
        """


class CfCKernels:
    """The kernels of a CfC; tensors and constants are those of ``CfCPlan``."""

    name, constants = "cfc", "str mode, int layers, str activation"
    reads_states = False

    def empty(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        return [empty_states(given), *(empty_kept(CfCPlan(*constants), given) if keep else ())]

    def forward(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        out, *kept = self.empty(constants, given, keep)
        forward_cfc(_kernels(), CfCPlan(*constants), readable(given), out, kept)
        return [out, *kept]

    def backward(
        self,
        constants: Sequence[Any],
        given: Given,
        made: Sequence[Tensor],
        grads: Tensor,
        needed: list[bool],
    ) -> Sequence[Tensor | None]:
        """See ``Runner``."""
        return backward_cfc(_kernels(), CfCPlan(*constants), readable(given), made, grads, needed)


class LTCKernels:
    """The kernels of an LTC; tensors and constants are those of ``LTCPlan``."""

    name, constants = "ltc", "int unfolds, float epsilon"
    reads_states = True

    def empty(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        return [_after_each_step(given)]

    def forward(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        return [forward_ltc(_kernels(), LTCPlan(*constants), _contiguous(given))[1:].clone()]

    def backward(
        self,
        constants: Sequence[Any],
        given: Given,
        made: Sequence[Tensor],
        grads: Tensor,
        needed: list[bool],
    ) -> Sequence[Tensor | None]:
        """See ``Runner``."""
        given = _contiguous(given)
        v = given[1]
        assert v is not None
        states = torch.cat([v.unsqueeze(0), made[0]])
        return backward_ltc(_kernels(), LTCPlan(*constants), given, states, grads)


class CfCSteps:
    """``CfCFunction``; the tensors are its own."""

    name, constants = "cfc_steps", "str mode, str? activation"
    reads_states = False

    def empty(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        out = _after_each_step(given)
        T, B, H = out.shape
        maps = [part for part in (given[5], *given[6::2]) if part is not None]
        kept = [out.new_empty(T + 1, B, H), *(out.new_empty(T, B, weight.shape[0]) for weight in maps)]
        return [out, *kept] if keep else [out]

    def forward(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        tensors: Sequence[Any] = given
        mode, activation, span = _cfc_constants(*constants)
        loops = _cfc_loops(mode, activation, given)
        states, results = loops.run_steps(keep, mode, activation, span, *tensors)
        # A compiler takes results to be aligned; a view may begin anywhere.
        out = states[1:].clone()
        return [out, states, *results] if keep else [out]

    def backward(
        self,
        constants: Sequence[Any],
        given: Given,
        made: Sequence[Tensor],
        grads: Tensor,
        needed: list[bool],
    ) -> Sequence[Tensor | None]:
        """See ``Runner``."""
        context = _Context(given[2:], made)
        mode, activation, span = _cfc_constants(*constants)
        context.constants = _cfc_loops(mode, activation, given), mode, activation, span
        return CfCFunction.backward(context, grads)[4:]


class LTCSteps:
    """``LTCFunction``; the tensors are its own, for every pair of neurons, and the mask."""

    name, constants = "ltc_steps", "int unfolds"
    reads_states = True

    def empty(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        return [_after_each_step(given)]

    def forward(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        arguments, _ = self._arguments(given)
        states = _ltc_loops(constants[0], arguments).run_steps(constants[0], *arguments)[1:]
        return [states.clone(memory_format=torch.contiguous_format)]

    def backward(
        self,
        constants: Sequence[Any],
        given: Given,
        made: Sequence[Tensor],
        grads: Tensor,
        needed: list[bool],
    ) -> Sequence[Tensor | None]:
        """See ``Runner``."""
        (sources, base, v, *rest), places = self._arguments(given)
        states = torch.cat([v.unsqueeze(0), made[0]])
        context = _Context((sources, base, *rest), [states.transpose(1, 2).contiguous().transpose(1, 2)])
        context.loops, context.unfolds = _ltc_loops(constants[0], (sources, base, v, *rest)), constants[0]
        *rest, d_weights, d_slope, d_offset = LTCFunction.backward(context, grads)[3:]
        if places is None:
            return [*rest, d_weights, d_slope, d_offset, None]
        assert d_weights is not None
        assert d_slope is not None
        assert d_offset is not None
        weights, slope, offset = (torch.zeros_like(part) for part in given[4:7] if part is not None)
        (sources, targets), H = places, slope.shape[1]
        rows = torch.arange(len(sources))
        weights[0, sources, targets] = d_weights[rows, targets]
        weights[1, sources, targets] = d_weights[rows, targets + H]
        slope[places], offset[places] = d_slope, d_offset
        return [*rest, weights, slope, offset, None]

    def _arguments(self, given: Given) -> tuple[tuple[Any, ...], tuple[Tensor, Tensor] | None]:
        base, v, spans, cm, weights, slope, offset, mask = given
        assert weights is not None
        assert slope is not None
        assert offset is not None
        assert mask is not None
        (sources, *parameters), places = choose_layout((None, weights, slope, offset), mask)
        return (sources, base, v, spans, cm, *parameters), places


class _Context:
    """What the backward pass of a Function needs of autograd."""

    constants: tuple[Any, ...]
    loops: LTCLoops
    unfolds: int

    def __init__(self, *saved: Given) -> None:
        self.saved_tensors = tuple(chain(*saved))


def _cfc_constants(mode: str, activation: str | None, span: float) -> tuple[str, Activation | None, float]:
    return mode, None if activation is None else ACTIVATIONS[activation], span


def _cfc_loops(mode: str, activation: Activation | None, given: Given) -> CfCLoops:
    x, _, spans = given[:3]
    assert x is not None
    return cfc_loops(mode, activation, x, len(given[6::2]), spans is not None)


def _ltc_loops(unfolds: int, arguments: Sequence[Any]) -> LTCLoops:
    sources, base, _, spans = arguments[:4]
    return ltc_loops(unfolds, base, sources is None, spans is not None)


def _after_each_step(given: Given) -> Tensor:
    """Return room for the states, ``[T, B, H]``, from a first tensor ``[T, B, ·]`` and a state ``[B, H]``."""
    x, h = given[:2]
    assert x is not None
    assert h is not None
    return h.new_empty(x.shape[0], *h.shape)


def _contiguous(given: Given) -> list[Tensor | None]:
    return [None if part is None else part.contiguous() for part in given]


def _kernels() -> Library:
    library = native()
    if library is None:
        raise RuntimeError(
            "the program was compiled with the C++ kernels, and here are none: compile it again"
        )
    return library
