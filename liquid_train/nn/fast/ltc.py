"""From the parameters of an LTC to what ``LTCFunction`` takes.

Shapes: T steps, B batch, C input channels, H neurons, P synapses, S sources (C or H); ``[·, 2H]`` as in
``synapses``.
"""

import torch
from torch import Tensor

from liquid_train.nn.fast.ltc_function import LTCFunction
from liquid_train.nn.fast.synapses import Listed, synapses_of
from liquid_train.nn.ltc_cell import LTCCell, _affine

_LISTED_PER_NEURON = 8
"""Up to so many synapses per neuron, a matrix product with mostly zeros is faster than one per neuron."""


def run_ltc(cell: LTCCell, x: Tensor, v: Tensor, spans: Tensor | float) -> tuple[Tensor, Tensor]:
    """Run a cell over ``x`` ``[T, B, C]`` from potentials ``v`` ``[B, H]``.

    ``spans`` is ``[T, B, 1]`` or one number. Returns outputs ``[T, B, O]`` and potentials ``[T, B, H]``.
    """
    d = spans / cell.ode_unfolds
    x = _affine(x, cell.input_w, cell.input_b)
    sensory = _layout(
        cell._positive(cell.sensory_w) * cell.sensory_sparsity_mask,
        cell.sensory_mu,
        cell.sensory_sigma,
        cell.sensory_erev,
        cell.sensory_sparsity_mask,
        1.0,
    )
    cm, gleak = cell._positive(cell.cm), cell._positive(cell.gleak)
    leak = torch.cat([gleak + cell.epsilon, gleak * cell.vleak])
    base = d * (_sums(sensory, x.flatten(0, 1)).unflatten(0, x.shape[:2]) + leak)
    base = base + torch.cat([cm, torch.zeros_like(cm)])
    fixed = d if isinstance(d, float) else 1.0
    w = cell._positive(cell.w) * cell.sparsity_mask
    sources, *parameters = _layout(w, cell.mu, cell.sigma, cell.erev, cell.sparsity_mask, fixed)
    states: Tensor = LTCFunction.apply(  # type: ignore[no-untyped-call]
        cell.ode_unfolds,
        sources,
        base,
        v,
        d if isinstance(d, Tensor) else None,
        cm,
        *parameters,
    )
    return _affine(states[..., : cell.motor_size], cell.output_w, cell.output_b), states


def _sums(layout: tuple[Tensor | None, Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """Sum over sources for all rows ``[N, S]`` at once, ``[N, 2H]``, by operations that autograd records."""
    synapses, v = synapses_of(*layout, x.shape[1]), x.t().contiguous()
    if isinstance(synapses, Listed):
        v = v.index_select(0, synapses.sources)
    opened = torch.sigmoid(v * synapses.slope - synapses.offset)
    return synapses.total(opened).t()


def _layout(
    w: Tensor, mu: Tensor, sigma: Tensor, erev: Tensor, mask: Tensor, factor: float
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """List the synapses if there are few, else take every pair. All arguments are ``[S, H]``.

    Returns sources, weights, slope and offset as ``synapses_of`` takes them.
    """
    H = mask.shape[1]
    w, offset = w * factor, sigma * mu
    # Counting synapses would make an accelerator wait.
    if mask.device.type == "cpu":
        sources, targets = torch.nonzero(mask, as_tuple=True)
        if len(sources) <= _LISTED_PER_NEURON * H:
            chosen, rows = w[sources, targets], torch.arange(len(sources))
            weights = w.new_zeros(len(sources), 2 * H)
            weights = weights.index_put((rows, targets), chosen)
            weights = weights.index_put((rows, targets + H), chosen * erev[sources, targets])
            return sources, weights, sigma[sources, targets], offset[sources, targets]
    return None, torch.stack([w, w * erev]), sigma, offset
