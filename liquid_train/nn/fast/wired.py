"""A wired CfC as one cell, whose layers are each a step behind the layer before.

At step t layer l reads layer l - 1 at step t and itself at step t - 1. If it runs a step later than layer
l - 1, the last step has left both: all layers are one product then, in T + L - 1 steps instead of T · L.

Shapes: T steps, L layers, B batch, C input channels, H neurons of all layers, U of one layer.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.fast.calls import cfc_call
from liquid_train.nn.fast.cfc import run_cfc
from liquid_train.nn.fast.cfc_fold import masked


def run_wired(layers: Sequence[CfCCell], x: Tensor, h: Tensor, spans: Tensor | float) -> list[Tensor]:
    """Return the states of each layer after each step, ``[T, B, U]``.

    Args:
        layers: They have no backbone.
        x: Input ``[T, B, C]``.
        h: State before the first step ``[B, H]``, layer by layer.
        spans: ``[T, B, 1]`` or one number.
    """
    T, last = len(x), len(layers) - 1
    bounds = [0, *accumulate(layer.hidden_size for layer in layers)]
    calls = [cfc_call(layer, x, h, spans) for layer in layers]
    _, _, _, masks, time_masks, a, w_tau, *maps = zip(*(tensors for _, tensors in calls), strict=True)
    # What layer l reads begins in x (l = 0), or with the layer before it.
    starts = [0, *(x.shape[2] + bound for bound in bounds[:-2])]
    heads = []
    for index, (weights, biases) in enumerate(zip(maps[::2], maps[1::2], strict=True)):
        there = map(masked, weights, masks if index < 2 else time_masks)
        heads += [_rows(there, starts, x.shape[2] + h.shape[1]), torch.cat(biases)]
    states = run_cfc(
        calls[0][0],
        F.pad(x, (0, 0, 0, 0, 0, last)),
        h,
        _late(spans, layers) if isinstance(spans, Tensor) else None,
        *(None, None),
        *(None if parts[0] is None else torch.cat(parts, 1) for parts in (a, w_tau)),
        *heads,
        held=bounds[1:-1],
    )
    return [states[late : late + T, :, first:end] for late, (first, end) in enumerate(pairwise(bounds))]


def _rows(weights: Iterable[Tensor], starts: Sequence[int], width: int) -> Tensor:
    """Put weights ``[U, ·]`` one below the other, each from its own column on."""
    parts = zip(weights, starts, strict=True)
    return torch.cat([F.pad(weight, (start, width - start - weight.shape[1])) for weight, start in parts])


def _late(spans: Tensor, layers: Sequence[CfCCell]) -> Tensor:
    """Return the spans of each neuron, ``[T + L - 1, B, H]``; before and after a layer's own they are one."""
    last = len(layers) - 1
    parts = [
        F.pad(spans, (0, 0, 0, 0, late, last - late), value=1.0).expand(-1, -1, layer.hidden_size)
        for late, layer in enumerate(layers)
    ]
    return torch.cat(parts, 2)
