"""Streams in C++: one call a step, in single precision."""

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from liquid_train.nn.ltc_cell import LTCCell
from liquid_train.nn.native.library import Library
from liquid_train.nn.native.packing import Packed, PackedCfC, PackedLTC
from liquid_train.nn.streaming.stream import Numbers, Stream, Timespan
from liquid_train.nn.streaming.weights import Array, cfc_weights, check_layer, linear_map, ltc_weights

if TYPE_CHECKING:
    from liquid_train.nn.layer import LiquidLayer


class NativeStream(Stream):
    """See ``Stream``; ``library`` holds the kernels."""

    def __init__(self, layer: "LiquidLayer", batch_size: int, reuse_output: bool, library: Library) -> None:
        self._library = library
        super().__init__(layer, batch_size, reuse_output)

    def step(self, x: Numbers, timespan: Timespan = 1.0) -> Tensor:
        """See ``Stream``."""
        form: tuple[int, ...]
        if (
            type(x) is Tensor
            and x.dtype is torch.float32
            and x.is_cpu
            and x.is_contiguous()
            and x.shape in self._arrays
        ):
            form, at = x.shape, x.data_ptr()
        else:
            array = self._array(x)
            form = array.shape
            self._x[...] = array
            at = self._x_at
        spans = None
        if type(timespan) is not float:
            given = self._span(timespan)
            if type(given) is float:
                timespan = given
            else:
                self._t[...] = given
                spans, timespan = self._t_at, 1.0
        self._function(self._address, at, spans, timespan, self._out_at)
        # The cheapest way there is to a new tensor with these numbers.
        return self._tensors[form] if self._reuse else torch.from_numpy(self._arrays[form].copy())

    def _take_weights(self) -> None:
        """See ``Stream``."""
        layer, B = self._layer, self.batch_size
        check_layer(layer)
        cell = layer.rnn_cell
        packed: Packed
        if isinstance(cell, LTCCell):
            if isinstance(layer.fc, nn.Linear):
                raise ValueError("fc was no Linear when the stream was made: make another stream")
            packed, self._function = PackedLTC(ltc_weights(cell), B), self._library.ltc_stream
        else:
            projection = linear_map(layer.fc) if isinstance(layer.fc, nn.Linear) else None
            packed = PackedCfC(cfc_weights(cell), projection, cell.output_size, B)
            self._function = self._library.cfc_stream
        kept, self._states = self._states, packed.states
        for mine, old in zip(self._states, kept, strict=False):
            mine[...] = old
        self._packed = packed
        self._address = ctypes.addressof(packed.call)
        if not kept:
            self._prepare()

    def _prepare(self) -> None:
        B, C = self.batch_size, self.input_size
        self._x, self._t = np.empty((B, C), np.float32), np.empty((B, 1), np.float32)
        out = np.empty((B, self.output_size), np.float32)
        self._x_at, self._t_at, self._out_at = (part.ctypes.data for part in (self._x, self._t, out))
        # The output by the shape of the input.
        self._arrays: dict[tuple[int, ...], Array] = {(B, C): out}
        if B == 1:
            self._arrays[(C,)] = out[0]
        self._tensors = {form: torch.from_numpy(array) for form, array in self._arrays.items()}
