"""The C++ kernels as runners."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast.calls import CfCPlan, LTCPlan
from liquid_train.nn.fast.compiled.runner import Given, after_each_step
from liquid_train.nn.fast.native_cfc import (
    backward_cfc,
    empty_kept,
    empty_states,
    forward_cfc,
    readable,
)
from liquid_train.nn.fast.native_ltc import backward_ltc, forward_ltc
from liquid_train.nn.native.library import Library, native


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
        forward_cfc(_library(), CfCPlan(*constants), readable(given), out, kept)
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
        return backward_cfc(_library(), CfCPlan(*constants), readable(given), made, grads, needed)


class LTCKernels:
    """The kernels of an LTC; tensors and constants are those of ``LTCPlan``."""

    name, constants = "ltc", "int unfolds, float epsilon"
    reads_states = True

    def empty(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        return [after_each_step(given)]

    def forward(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """See ``Runner``."""
        return [forward_ltc(_library(), LTCPlan(*constants), _contiguous(given))[1:].clone()]

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
        return backward_ltc(_library(), LTCPlan(*constants), given, states, grads)


def _contiguous(given: Given) -> list[Tensor | None]:
    return [None if part is None else part.contiguous() for part in given]


def _library() -> Library:
    library = native()
    if library is None:
        raise RuntimeError(
            "the program was compiled with the C++ kernels, and here are none: compile it again"
        )
    return library
