"""The loops of ``LTCFunction`` over the steps of one sequence, the first in NumPy, whose calls cost a fraction.

Shapes: T steps, H neurons, P synapses.
"""

import numpy as np
import torch
from torch import Tensor

from liquid_train.nn.fast.ltc_steps import run_back

__all__ = ["run_back", "run_steps", "serves_single"]

_MOST = 1 << 16
"""Neurons times synapses: both maps of a step are so large, and mostly zeros."""


def serves_single(v: Tensor, synapses: int) -> bool:
    """Return whether potentials ``[B, H]`` are of one sample of a small circuit, on a CPU."""
    return len(v) == 1 and v.device.type == "cpu" and v.shape[1] * synapses <= _MOST


def run_steps(
    unfolds: int,
    sources: Tensor | None,
    base: Tensor,
    v: Tensor,
    spans: Tensor | None,
    cm: Tensor,
    weights: Tensor,
    slope: Tensor,
    offset: Tensor,
) -> Tensor:
    """Return the potentials before the first step and after each, ``[T + 1, 1, H]``; see ``LTCFunction``."""
    T, H = len(base), v.shape[1]
    # Of every pair a synapse.
    if sources is None:
        sources = torch.arange(len(slope)).repeat_interleave(H)
        weights = torch.cat([torch.diag_embed(part).flatten(0, 1) for part in weights], 1)
        slope, offset = slope.flatten(), offset.flatten()
    P = len(slope)
    # σ(x) = (1 + tanh(x / 2)) / 2; the last row of each map is the bias.
    opening, through = v.new_zeros(H + 1, P), v.new_empty(P + 1, 2 * H)
    opening[sources, torch.arange(P)] = 0.5 * slope
    opening[H] = -0.5 * offset
    through[:P] = 0.5 * weights
    through[P] = through[:P].sum(0)
    states = v.new_empty(T + 1, 1, H)
    states[0] = v
    z, opened = np.append(v.detach().numpy(), v.new_ones(1)), v.new_ones(P + 1).numpy()
    x, sums, charge = (v.new_empty(size).numpy() for size in (P, 2 * H, H))
    old, inner, conductance, current = z[:H], opened[:P], sums[:H], sums[H:]
    maps, capacity = (opening.numpy(), through.numpy()), cm.detach().numpy()
    times = [None] * T if spans is None else spans.detach().numpy()[:, 0]
    with np.errstate(all="ignore"):
        for given, time, out in zip(base.detach()[:, 0].numpy(), times, states[1:, 0].numpy(), strict=True):
            for _ in range(unfolds):
                z.dot(maps[0], x)
                np.tanh(x, inner)
                opened.dot(maps[1], sums)
                if time is not None:
                    np.multiply(sums, time, sums)
                np.add(sums, given, sums)
                np.multiply(capacity, old, charge)
                np.add(charge, current, charge)
                np.divide(charge, conductance, old)
            out[...] = old
    return states
