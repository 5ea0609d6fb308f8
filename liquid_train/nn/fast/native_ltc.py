"""An LTC cell over whole sequences, its steps run by the kernels.

Shapes: T steps, B batch, C input channels, H neurons, O outputs, S sources of synapses (C or H).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast.calls import LTCPlan
from liquid_train.nn.fast.replay import must_replay, plain_ltc, replayed
from liquid_train.nn.native.library import Library
from liquid_train.nn.native.structures import LTCCall, SynapsesCall, address


def run_native_ltc(library: Library, plan: LTCPlan, *tensors: Tensor | None) -> Tensor:
    """Return the potentials after each step ``[T, B, H]``; ``LTCPlan`` has the tensors."""
    given = [None if part is None else part.contiguous() for part in tensors]
    states: Tensor = NativeLTC.apply(library, plan, *given)  # type: ignore[no-untyped-call]
    return states


class NativeLTC(torch.autograd.Function):
    """``apply(library, plan, x, v, spans, cm, gleak, vleak, *sensory, *neural, *masks) -> states``.

    Args:
        library: The kernels.
        plan: The call's constants.
        x: ``[T, B, C]``, contiguous like all other tensors of ``LTCPlan``.

    Returns:
        Potentials after each step ``[T, B, H]``.
    """

    @staticmethod
    def forward(ctx: Any, library: Library, plan: LTCPlan, *tensors: Tensor | None) -> Tensor:
        """Run the steps."""
        states = forward_ltc(library, plan, tensors)
        ctx.save_for_backward(states, *tensors)
        ctx.library, ctx.plan = library, plan
        return states[1:]

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """Run the steps backwards."""
        states, *tensors = ctx.saved_tensors
        if must_replay(grads):
            found = replayed(plain_ltc, ctx.plan, tensors, ctx.needs_input_grad[2:], grads)
            return None, None, *found
        return None, None, *backward_ltc(ctx.library, ctx.plan, tensors, states, grads)


def forward_ltc(library: Library, plan: LTCPlan, tensors: Sequence[Tensor | None]) -> Tensor:
    """Run the steps and return the potentials before each and after the last ``[T + 1, B, H]``."""
    x, v = tensors[:2]
    assert x is not None
    assert v is not None
    states = v.new_empty(len(x) + 1, *v.shape)
    states[0] = v
    library.ltc_forward(_call(plan, tensors, states))
    return states


def backward_ltc(
    library: Library, plan: LTCPlan, tensors: Sequence[Tensor | None], states: Tensor, grads: Tensor
) -> list[Tensor | None]:
    """Run the steps backwards, each forwards first, and return the tensors' gradients."""
    grads = grads.contiguous()
    call = _call(plan, tensors, states)
    d_x, d_v, d_spans = (None if part is None else torch.empty_like(part) for part in tensors[:3])
    d_parameters = [torch.zeros_like(part) for part in tensors[3:14] if part is not None]
    call.grads, call.d_x, call.d_initial, call.d_spans = map(address, (grads, d_x, d_v, d_spans))
    call.d_cm, call.d_gleak, call.d_vleak = map(address, d_parameters[:3])
    for synapses, made in ((call.sensory, d_parameters[3:7]), (call.neural, d_parameters[7:])):
        synapses.d_w, synapses.d_mu, synapses.d_sigma, synapses.d_erev = map(address, made)
    library.ltc_backward(call)
    return [d_x, d_v, d_spans, *d_parameters, None, None]


def _call(plan: LTCPlan, tensors: Sequence[Tensor | None], states: Tensor) -> LTCCall:
    x, _, spans, cm, gleak, vleak = tensors[:6]
    assert x is not None
    sensory_mask, mask = tensors[14:]
    return LTCCall(
        *(*x.shape, states.shape[2], plan.unfolds, torch.get_num_threads(), 0, 0),
        *(plan.span, plan.epsilon),
        *map(address, (x, spans, cm, gleak, vleak)),
        SynapsesCall(*map(address, (*tensors[6:10], sensory_mask))),
        SynapsesCall(*map(address, (*tensors[10:14], mask))),
        address(states),
    )
