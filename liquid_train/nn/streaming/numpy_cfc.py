"""Steps of CfC cells in NumPy, whose calls cost a fraction of PyTorch's for so few numbers.

Shapes: B batch, C input channels, H hidden units, N heads.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from liquid_train.nn.streaming.weights import Array, CfCWeights

_BENT: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu": F.gelu}

Span = float | Array
"""A number, or ``[B, 1]``."""


class NumpyCfC:
    """The layers of a CfC cell, one after the other: one without a wiring.

    Attributes:
        input: Where the input of a step is put, ``[B, C]``.
        states: The states of the layers, ``[B, H]`` each.
    """

    def __init__(self, weights: Sequence[CfCWeights], batch_size: int) -> None:
        self.layers = [_Layer(part, batch_size) for part in weights]
        self.input = self.layers[0].input
        self.states = [layer.state for layer in self.layers]

    def run(self, span: Span) -> Array:
        """Run one step and return the last layer's state."""
        first, *others = self.layers
        first.run(span)
        state = first.state
        for layer in others:
            layer.input[...] = state
            layer.run(span)
            state = layer.state
        return state


class _Layer:
    def __init__(self, weights: CfCWeights, batch_size: int) -> None:
        B, C, H = batch_size, weights.inputs, weights.units
        dtype = weights.heads.dtype
        widths = [C + H, *(map.shape[1] for map in weights.backbone)]
        # The last column stays one: the bias is the last row of each map.
        buffers = [np.ones((B, width + 1), dtype) for width in widths]
        self.input, self.state = buffers[0][:, :C], buffers[0][:, C : C + H]
        self.state[...] = 0.0
        self.backbone = [
            (given, map, np.empty((B, map.shape[1]), dtype), after[:, :-1])
            for given, map, after in zip(buffers, weights.backbone, buffers[1:], strict=False)
        ]
        self.activate = _activation(weights.activation)
        self.z = buffers[-1]
        self.heads = (_Pure if weights.mode == "pure" else _Gated)(weights, B)

    def run(self, span: Span) -> None:
        for given, map, out, after in self.backbone:
            given.dot(map, out)
            self.activate(out, after)
        self.heads.run(self.z, span, self.state)


class _Gated:
    """The gate as ``σ(x) = (1 + tanh(x / 2)) / 2``: one tanh for all heads, with half the gate's weights.

    For a span of one, the default, the gate's two heads are merged beforehand.
    """

    def __init__(self, weights: CfCWeights, batch_size: int) -> None:
        H = weights.units
        shape = (batch_size, H)
        maps = weights.heads.copy()
        maps[:, 2 * H :] *= 0.5
        self.mixing = weights.mode == "default"
        self.maps = maps
        self.u = np.empty((batch_size, 4 * H), maps.dtype)
        self.p, self.q, self.s, self.slope = (self.u[:, k * H : (k + 1) * H] for k in range(4))
        self.u3 = self.u[:, : 3 * H]
        self.half = np.full(shape, 0.5, maps.dtype)
        self.merged = maps[:, : 3 * H].copy()
        self.merged[:, 2 * H :] += maps[:, 3 * H :]
        self.v = np.empty((batch_size, 3 * H), maps.dtype)
        self.merged_heads = tuple(self.v[:, k * H : (k + 1) * H] for k in range(3))
        self.d = np.empty(shape, maps.dtype)

    def run(self, z: Array, span: Span, out: Array) -> None:
        if type(span) is float and span == 1.0:
            z.dot(self.merged, self.v)
            np.tanh(self.v, self.v)
            p, q, s = self.merged_heads
        else:
            z.dot(self.maps, self.u)
            self.slope *= span
            self.s += self.slope
            np.tanh(self.u3, self.u3)
            p, q, s = self.p, self.q, self.s
        d = self.d
        if self.mixing:
            np.subtract(q, p, d)
            np.multiply(d, s, d)
            np.add(d, p, d)
            np.add(d, q, d)
            np.multiply(d, self.half, out)
        else:
            np.multiply(q, s, d)
            np.add(d, q, d)
            np.multiply(d, self.half, d)
            np.add(d, p, out)


class _Pure:
    def __init__(self, weights: CfCWeights, batch_size: int) -> None:
        shape = (batch_size, weights.units)
        self.map = weights.heads
        self.f, self.decay = np.empty(shape, self.map.dtype), np.empty(shape, self.map.dtype)
        self.a, self.rate = (np.tile(part, (batch_size, 1)) for part in (weights.a, -weights.rate))

    def run(self, z: Array, span: Span, out: Array) -> None:
        f, decay = self.f, self.decay
        z.dot(self.map, f)
        np.absolute(f, decay)
        np.subtract(self.rate, decay, decay)
        decay *= span
        np.exp(decay, decay)
        np.multiply(decay, f, decay)
        np.multiply(decay, self.a, decay)
        np.subtract(self.a, decay, out)


def _activation(name: str) -> Callable[[Array, Array], Any]:
    if name == "tanh":
        return np.tanh
    if name == "relu":
        return _relu
    bend = _BENT[name]

    def activate(x: Array, out: Array) -> None:
        out[...] = bend(torch.from_numpy(x)).numpy()

    return activate


def _relu(x: Array, out: Array) -> None:
    np.maximum(x, 0.0, out)
