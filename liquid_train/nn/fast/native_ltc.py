"""An LTC cell over whole sequences, its steps run by the kernels.

Shapes: T steps, B batch, C input channels, H neurons, O outputs, S sources of synapses (C or H).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.fast.calls import LTCPlan
from liquid_train.nn.fast.replay import is_asked_for, plain_ltc, replayed
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
        x, v = tensors[:2]
        assert x is not None
        assert v is not None
        states = v.new_empty(len(x) + 1, *v.shape)
        states[0] = v
        library.ltc_forward(_call(plan, tensors, states))
        ctx.save_for_backward(states, *tensors)
        ctx.library, ctx.plan = library, plan
        return states[1:]

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """Run the steps backwards, each forwards first."""
        states, *tensors = ctx.saved_tensors
        if is_asked_for(grads):
            found = replayed(plain_ltc, ctx.plan, tensors, ctx.needs_input_grad[2:], grads)
            return None, None, *found
        x, v, spans = tensors[:3]
        grads = grads.contiguous()
        call = _call(ctx.plan, tensors, states)
        d_x, d_v = torch.empty_like(x), torch.empty_like(v)
        d_spans = None if spans is None else torch.empty_like(spans)
        d_cell = [torch.zeros_like(part) for part in tensors[3:6]]
        d_synapses = [torch.zeros_like(part) for part in tensors[6:14]]
        call.grads, call.d_x, call.d_initial, call.d_spans = map(address, (grads, d_x, d_v, d_spans))
        call.d_cm, call.d_gleak, call.d_vleak = map(address, d_cell)
        for synapses, made in ((call.sensory, d_synapses[:4]), (call.neural, d_synapses[4:])):
            synapses.d_w, synapses.d_mu, synapses.d_sigma, synapses.d_erev = map(address, made)
        ctx.library.ltc_backward(call)
        return None, None, d_x, d_v, d_spans, *d_cell, *d_synapses, None, None


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
