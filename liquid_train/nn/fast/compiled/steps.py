"""The loops over steps as runners."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast.activations import ACTIVATIONS, Activation
from liquid_train.nn.fast.calls import CfCPlan
from liquid_train.nn.fast.cfc_function import CfCLoops, gradients
from liquid_train.nn.fast.compiled.runner import Given, after_each_step
from liquid_train.nn.fast.layout import choose_layout, from_list
from liquid_train.nn.fast.ltc_function import LTCLoops
from liquid_train.nn.gpu.choice import cfc_loops, ltc_loops


class CfCSteps:
    """The loops of a CfC; the tensors are those that ``fast.cfc_steps.run_steps`` takes."""

    name, constants = "cfc_steps", "str mode, str? activation"
    reads_states = False

    def empty(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        out = after_each_step(given)
        T, B, H = out.shape
        maps = [part for part in (given[5], *given[6::2]) if part is not None]
        kept = [out.new_empty(T + 1, B, H), *(out.new_empty(T, B, weight.shape[0]) for weight in maps)]
        return [out, *kept] if keep else [out]

    def forward(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        tensors: Sequence[Any] = given
        mode, activation, span = _cfc_constants(*constants)
        loops = _cfc_loops(constants, given)
        # An operator must not overwrite what it is given.
        states, results = loops.run_steps(keep, mode, activation, span, tensors[0].clone(), *tensors[1:])
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
        mode, activation, span = _cfc_constants(*constants)
        loops = _cfc_loops(constants, given)
        totals = grads.clone(memory_format=torch.contiguous_format)
        return gradients(loops, mode, activation, span, [*given[2:], *made], totals)


class LTCSteps:
    """``LTCFunction``; the tensors are its own, for every pair of neurons, and the mask."""

    name, constants = "ltc_steps", "int unfolds"
    reads_states = True

    def empty(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        return [after_each_step(given)]

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
        pairs: Any = given[5]
        states = torch.cat([v.unsqueeze(0), made[0]])
        loops = _ltc_loops(constants[0], (sources, base, v, *rest))
        *found, weights, slope, offset = loops.run_back(constants[0], sources, base, *rest, states, grads)
        if places is not None:
            weights, slope, offset = from_list(places, weights, slope, offset, pairs)
        return [*found, weights, slope, offset, None]

    def _arguments(self, given: Given) -> tuple[tuple[Any, ...], tuple[Tensor, Tensor] | None]:
        base, v, spans, cm, weights, slope, offset, mask = given
        assert weights is not None
        assert slope is not None
        assert offset is not None
        assert mask is not None
        (sources, *parameters), places = choose_layout((None, weights, slope, offset), mask)
        return (sources, base, v, spans, cm, *parameters), places


def _cfc_constants(mode: str, activation: str | None, span: float) -> tuple[str, Activation | None, float]:
    return mode, None if activation is None else ACTIVATIONS[activation], span


def _cfc_loops(constants: Sequence[Any], given: Given) -> CfCLoops:
    mode, activation, span = constants
    x, _, spans = given[:3]
    assert x is not None
    return cfc_loops(CfCPlan(mode, len(given[6::2]), activation or "ReLU", span), x, spans is not None)


def _ltc_loops(unfolds: int, arguments: Sequence[Any]) -> LTCLoops:
    sources, base, _, spans = arguments[:4]
    return ltc_loops(unfolds, base, sources is None, spans is not None)
