"""Streams in NumPy: where there are no kernels, in double precision, and for what the kernels do not have.

Shapes: B batch, C input channels, H hidden units, O outputs.
"""

import numpy as np
import torch
from torch import Tensor, nn

from liquid_train.nn.ltc_cell import LTCCell
from liquid_train.nn.memory_cell import MemoryCell
from liquid_train.nn.streaming.numpy_cfc import NumpyCfC
from liquid_train.nn.streaming.numpy_ltc import NumpyLTC
from liquid_train.nn.streaming.stream import Numbers, Stream, Timespan
from liquid_train.nn.streaming.weights import (
    Array,
    cfc_weights,
    check_layer,
    frozen,
    linear_map,
    ltc_weights,
)


class NumpyStream(Stream):
    """See ``Stream``."""

    def step(self, x: Numbers, timespan: Timespan = 1.0) -> Tensor:
        """See ``Stream``."""
        array = self._array(x)
        span = timespan if type(timespan) is float else self._span(timespan)
        self._cell.input[...] = array
        if self._lstm is not None:
            self._lstm.run(self._cell.input, self._cell.states)
        output = self._cell.run(span)
        if self._projection is not None:
            self._z[:, :-1] = output[:, : self._outputs]
            output = self._z.dot(self._projection)
        else:
            output = output[:, : self._outputs]
        if self._reuse:
            self._out[...] = output
            return self._out_single if array.ndim == 1 else self._out_whole
        return torch.from_numpy((output[0] if array.ndim == 1 else output).copy())

    def _take_weights(self) -> None:
        """See ``Stream``."""
        kept = self.state if self._states else None
        layer, B = self._layer, self.batch_size
        check_layer(layer)
        cell = layer.rnn_cell
        self._cell = (
            NumpyLTC(ltc_weights(cell), B) if isinstance(cell, LTCCell) else NumpyCfC(cfc_weights(cell), B)
        )
        self._states = self._cell.states
        self._lstm = None if layer.lstm is None else _Memory(layer.lstm, B)
        self._memory = [] if self._lstm is None else [self._lstm.c]
        self._outputs = cell.output_size
        self._projection = linear_map(layer.fc) if isinstance(layer.fc, nn.Linear) else None
        self._z = np.ones((B, self._outputs + 1), self._states[0].dtype)
        self._out = np.empty((B, self.output_size), self._states[0].dtype)
        self._out_whole = torch.from_numpy(self._out)
        self._out_single = self._out_whole[0]
        if kept is not None:
            self.state = kept


class _Memory:
    """The memory cell: its hidden state becomes that of the cell after it."""

    def __init__(self, memory: MemoryCell, batch_size: int) -> None:
        self.by_input = frozen(memory.input_map.weight.t())
        self.by_state = frozen(memory.recurrent_map.weight.t())
        self.bias = frozen(memory.input_map.bias)
        H = memory.hidden_size
        self.bias[2 * H : 3 * H] += 1.0
        self.sizes = np.cumsum([H] * 3)
        self.c = np.zeros((batch_size, H), self.bias.dtype)

    def run(self, x: Array, states: list[Array]) -> None:
        """Run one step from the parts of the hidden state, and put them in their places."""
        h = np.concatenate(states, 1)
        z = x.dot(self.by_input) + h.dot(self.by_state) + self.bias
        candidate, input_gate, forget_gate, output_gate = np.split(z, self.sizes, 1)
        self.c *= _logistic(forget_gate)
        self.c += np.tanh(candidate) * _logistic(input_gate)
        h = np.tanh(self.c) * _logistic(output_gate)
        start = 0
        for state in states:
            state[...] = h[:, start : start + state.shape[1]]
            start += state.shape[1]


def _logistic(x: Array) -> Array:
    half: Array = np.tanh(x * 0.5) * 0.5 + 0.5
    return half.astype(x.dtype, copy=False)
