"""An LTC cell over whole sequences, its steps run by the kernels.

Shapes: T steps, B batch, C input channels, H neurons, O outputs, S sources of synapses (C or H).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from liquid_train.nn.ltc_cell import LTCCell, _affine
from liquid_train.nn.native.library import Library
from liquid_train.nn.native.structures import LTCCall, SynapsesCall, address


def run_native_ltc(
    library: Library, cell: LTCCell, x: Tensor, v: Tensor, spans: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Run a cell over ``x`` ``[T, B, C]`` from potentials ``v`` ``[B, H]``.

    ``spans`` is ``[T, B, 1]`` or one number. Returns outputs ``[T, B, O]`` and potentials ``[T, B, H]``.
    """
    part = spans / cell.ode_unfolds
    parts, span = (part, 1.0) if isinstance(part, Tensor) else (None, part)
    states: Tensor = NativeLTC.apply(  # type: ignore[no-untyped-call]
        (library, cell.ode_unfolds, span, cell.epsilon),
        _affine(x, cell.input_w, cell.input_b),
        v,
        parts,
        *(cell._positive(cell.cm), cell._positive(cell.gleak), cell.vleak),
        *(cell._positive(cell.sensory_w), cell.sensory_mu, cell.sensory_sigma, cell.sensory_erev),
        *(cell._positive(cell.w), cell.mu, cell.sigma, cell.erev),
        *(cell.sensory_sparsity_mask, cell.sparsity_mask),
    )
    return _affine(states[..., : cell.motor_size], cell.output_w, cell.output_b), states


class NativeLTC(torch.autograd.Function):
    """``apply(constants, x, v, spans, cm, gleak, vleak, *sensory, *neural, *masks) -> states``.

    Args:
        constants: The kernels, the number of solver parts of a step, the length of a part where ``spans`` is
            None, and epsilon.
        x: ``[T, B, C]``.
        v: Potentials before the first step ``[B, H]``.
        spans: Length of a solver part ``[T, B, 1]``, or None.
        cm: ``[H]``, as are ``gleak`` and ``vleak``.
        sensory: ``w``, ``mu``, ``sigma`` and ``erev`` of the inputs' synapses, ``[C, H]``.
        neural: Those of the neurons', ``[H, H]``.
        masks: Where synapses are: of inputs, of neurons.

    Returns:
        Potentials after each step ``[T, B, H]``.
    """

    @staticmethod
    def forward(ctx: Any, constants: tuple[Library, int, float, float], *given: Tensor | None) -> Tensor:
        """Run the steps."""
        tensors = tuple(None if part is None else part.contiguous() for part in given)
        x, v = tensors[:2]
        assert x is not None
        assert v is not None
        states = v.new_empty(len(x) + 1, *v.shape)
        states[0] = v
        constants[0].ltc_forward(_call(constants, tensors, states))
        ctx.save_for_backward(states, *tensors)
        ctx.constants = constants
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """Run the steps backwards, each forwards first."""
        states, *tensors = ctx.saved_tensors
        x, v, spans = tensors[:3]
        grads = grads.contiguous()
        call = _call(ctx.constants, tensors, states)
        d_x, d_v = torch.empty_like(x), torch.empty_like(v)
        d_spans = None if spans is None else torch.empty_like(spans)
        d_cell = [torch.zeros_like(part) for part in tensors[3:6]]
        d_synapses = [torch.zeros_like(part) for part in tensors[6:14]]
        call.grads, call.d_x, call.d_initial, call.d_spans = map(address, (grads, d_x, d_v, d_spans))
        call.d_cm, call.d_gleak, call.d_vleak = map(address, d_cell)
        for synapses, made in ((call.sensory, d_synapses[:4]), (call.neural, d_synapses[4:])):
            synapses.d_w, synapses.d_mu, synapses.d_sigma, synapses.d_erev = map(address, made)
        ctx.constants[0].ltc_backward(call)
        return None, d_x, d_v, d_spans, *d_cell, *d_synapses, None, None


def _call(
    constants: tuple[Library, int, float, float], tensors: Sequence[Tensor | None], states: Tensor
) -> LTCCall:
    _, unfolds, span, epsilon = constants
    x, _, spans, cm, gleak, vleak = tensors[:6]
    assert x is not None
    sensory_mask, mask = tensors[14:]
    return LTCCall(
        *(*x.shape, states.shape[2], unfolds, torch.get_num_threads(), 0, 0),
        *(span, epsilon),
        *map(address, (x, spans, cm, gleak, vleak)),
        SynapsesCall(*map(address, (*tensors[6:10], sensory_mask))),
        SynapsesCall(*map(address, (*tensors[10:14], mask))),
        address(states),
    )
