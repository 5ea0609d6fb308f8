"""The two loops of ``CfCFunction`` over steps, each as one kernel: ``fast.cfc_steps`` has what they do.

There is one backbone layer at most.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from liquid_train.nn.fast.activations import Activation
from liquid_train.nn.gpu.kernels import cfc as cfc_kernels
from liquid_train.nn.gpu.precision import precision

_FEW_SAMPLES = 512
"""Up to so many, programs take few samples: more of them run at once."""

_COLUMNS, _WARPS = 64, 8

_MODES = {"default": cfc_kernels.GATED, "no_gate": cfc_kernels.NO_GATE, "pure": cfc_kernels.PURE}

_CORES: dict[Callable[[Tensor], Tensor], int] = {
    torch.sigmoid_: cfc_kernels.SIGMOID,
    torch.relu_: cfc_kernels.RELU,
    F.silu: cfc_kernels.SILU,
    F.gelu: cfc_kernels.GELU,
}


def run_steps(
    keep: bool,
    mode: str,
    activation: Activation | None,
    span: float,
    x: Tensor,
    h: Tensor,
    spans: Tensor | None,
    a: Tensor | None,
    w_tau: Tensor | None,
    recurrent: Tensor,
    *maps: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """See ``fast.cfc_steps``."""
    T, (B, H) = len(x), h.shape
    states = h.new_empty(T + 1, B, H)
    states[0] = h
    results = [x.new_empty(T if keep else 1, B, len(part)) for part in (recurrent, *maps[::2])]
    inner, heads = results[0], results[-1]
    keeps_argument = activation is not None and activation.keeps_argument
    # Without a backbone the kernel reads neither of the last two.
    value = torch.empty_like(inner[0]) if keeps_argument else inner
    w, bias = maps if maps else (recurrent, recurrent)
    rows, chunk = _tile(B)
    with torch.cuda.device_of(x):
        cfc_kernels.forward[(triton.cdiv(B, rows),)](
            *(x.contiguous(), states, recurrent.contiguous(), inner, value, heads, w.contiguous(), bias),
            *(states if part is None else part.contiguous() for part in (spans, a, w_tau)),
            *(span, T, B, H, inner.shape[2]),
            MODE=_MODES[mode],
            N=heads.shape[2] // H,
            BACKBONE=len(maps) > 0,
            ACTIVATION=cfc_kernels.SIGMOID if activation is None else _CORES[activation.core],
            KEEPS_ARGUMENT=keeps_argument,
            KEEP=keep,
            SPANS=spans is not None,
            ROWS=rows,
            COLUMNS=_COLUMNS,
            CHUNK=chunk,
            PRECISION=precision(),
            num_warps=_WARPS,
        )
    return states, results


def run_back(
    totals: Tensor, d_heads: Tensor, slopes: Sequence[Tensor], recurrent: Tensor, weights: Sequence[Tensor]
) -> Tensor:
    """See ``fast.cfc_steps``."""
    T, B, H = totals.shape
    d_initial = torch.zeros_like(totals[0])
    slope, w = (slopes[0], weights[0]) if slopes else (d_heads, recurrent)
    rows, chunk = _tile(B)
    with torch.cuda.device_of(totals):
        cfc_kernels.backward[(triton.cdiv(B, rows),)](
            *(totals[-1], d_initial, d_heads[-1], slope[-1], w.contiguous(), recurrent.contiguous()),
            *(T, B, H, slope.shape[2]),
            N=d_heads.shape[2],
            BACKBONE=len(slopes) > 0,
            ROWS=rows,
            COLUMNS=_COLUMNS,
            CHUNK=chunk,
            PRECISION=precision(),
            num_warps=_WARPS,
        )
    return d_initial


def _tile(batch_size: int) -> tuple[int, int]:
    """Return the samples of a program and the terms of a sum that it takes at once: they fit the registers."""
    return (4, 32) if batch_size <= _FEW_SAMPLES else (16, 16)
