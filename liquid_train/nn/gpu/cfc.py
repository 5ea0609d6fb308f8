"""A CfC cell over whole sequences on a GPU, its steps run by the Triton kernels.

Shapes: T steps, B batch, H hidden units, N heads, K width of the backbone layer, F width of the first map.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from liquid_train.nn.fast.activations import Activation
from liquid_train.nn.gpu import cfc_kernels

_FEW_SAMPLES = 512
"""Up to so many, programs of few samples: more of them run at once."""

_WARPS = 8

_MODES = {"default": cfc_kernels.GATED, "no_gate": cfc_kernels.NO_GATE, "pure": cfc_kernels.PURE}

_CORES = {
    torch.sigmoid_: cfc_kernels.SIGMOID,
    torch.relu_: cfc_kernels.RELU,
    F.silu: cfc_kernels.SILU,
    F.gelu: cfc_kernels.GELU,
}


def run_forward(
    mode: str,
    activation: Activation | None,
    span: float,
    x: Tensor,
    states: Tensor,
    spans: Tensor | None,
    a: Tensor | None,
    w_tau: Tensor | None,
    recurrent: Tensor,
    maps: Sequence[Tensor],
    arguments: Sequence[Tensor],
    values: Sequence[Tensor],
) -> None:
    """Run the steps of ``CfCFunction.forward``, whose names these are.

    ``states[0]`` is given; the other states, ``arguments`` and ``values`` are filled. There is one backbone layer
    at most.
    """
    B, H = states.shape[1:]
    backbone = len(maps) > 0
    heads = arguments[-1]
    w, bias = maps if backbone else (recurrent, recurrent)
    inner, value = (arguments[0], values[0]) if backbone else (heads, heads)
    rows, chunk = _tile(B)
    with torch.cuda.device_of(x):
        cfc_kernels.forward[(triton.cdiv(B, rows),)](
            *(x.contiguous(), states, recurrent.contiguous(), inner, value, heads, w.contiguous(), bias),
            *(part if part is not None else states for part in (spans, a, w_tau)),
            *(span, len(x), B, H, recurrent.shape[0] if backbone else 0),
            MODE=_MODES[mode],
            N=heads.shape[2] // H,
            BACKBONE=backbone,
            ACTIVATION=cfc_kernels.SIGMOID if activation is None else _CORES[activation.core],
            KEEPS_ARGUMENT=activation is not None and activation.keeps_argument,
            SPANS=spans is not None,
            ROWS=rows,
            COLUMNS=64,
            CHUNK=chunk,
            num_warps=_WARPS,
        )


def run_backward(
    totals: Tensor,
    d_initial: Tensor,
    d_heads: Tensor,
    slopes: Sequence[Tensor],
    recurrent: Tensor,
    maps: Sequence[Tensor],
) -> None:
    """Run the steps of ``CfCFunction.backward``, whose names these are; all but the weights are overwritten."""
    B, H = d_initial.shape
    backbone = len(maps) > 0
    w, slope = (maps[0], slopes[0]) if backbone else (recurrent, d_heads)
    rows, chunk = _tile(B)
    with torch.cuda.device_of(totals):
        cfc_kernels.backward[(triton.cdiv(B, rows),)](
            *(totals[-1], d_initial, d_heads[-1], slope[-1], w.contiguous(), recurrent.contiguous()),
            *(len(totals), B, H, recurrent.shape[0] if backbone else 0),
            N=d_heads.shape[2],
            BACKBONE=backbone,
            ROWS=rows,
            COLUMNS=64,
            CHUNK=chunk,
            num_warps=_WARPS,
        )


def _tile(batch_size: int) -> tuple[int, int]:
    """Return the samples of a program and the numbers of a sum that it takes at once: they fit the registers."""
    return (4, 32) if batch_size <= _FEW_SAMPLES else (16, 16)
