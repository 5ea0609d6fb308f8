"""A layer that runs step by step: frozen weights, carried state, nothing prepared twice.

Shapes: B batch, C input channels, H hidden units, O outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from liquid_train.nn._checks import check_at_least
from liquid_train.nn.arguments import Hidden
from liquid_train.nn.streaming.weights import Array

if TYPE_CHECKING:
    from liquid_train.nn.layer import LiquidLayer

Numbers = Tensor | Array | Sequence[float] | Sequence[Sequence[float]]
"""What can be the input of a step: a tensor on any device, a NumPy array, or numbers."""

Timespan = float | Tensor | Array | Sequence[float]
"""A number, or one for each sample, ``[B]`` or ``[B, 1]``."""


class Stream(ABC):
    """Steps of a layer on the CPU, with a copy of its weights and a state of its own.

    Made by ``layer.stream()``. It runs the layer as it is in ``eval()`` without autograd, hooks and autocast,
    in the precision of its weights, whatever its ``fast``. Later changes of the layer's weights do not reach
    it until ``refresh()``. Not for several threads at a time; it cannot be copied or pickled.

    Args:
        layer: The layer. It is kept for ``refresh()``.
        batch_size: Samples B that advance together, each with a state of its own.
        reuse_output: Whether each step overwrites the output of the one before, which saves making a new one.

    Attributes:
        batch_size: Samples B.
        input_size: Input channels C.
        state_size: Hidden units H.
        output_size: Outputs O.

    Raises:
        ValueError: If the weights are neither all float32 nor all float64.
    """

    def __init__(self, layer: "LiquidLayer", batch_size: int = 1, reuse_output: bool = False) -> None:
        self.batch_size = check_at_least("batch_size", batch_size, 1)
        self.input_size, self.state_size = layer.input_size, layer.state_size
        self.output_size = layer.output_size
        self._layer = layer
        self._reuse = reuse_output
        self.dtype = dtype_of(layer)
        self._whole, self._single = (self.batch_size, self.input_size), (self.input_size,)
        self._states: list[Array] = []
        self._memory: list[Array] = []
        self.refresh()
        self.reset()

    @abstractmethod
    def step(self, x: Numbers, timespan: Timespan = 1.0) -> Tensor:
        """Advance the state by one step and return the output.

        Args:
            x: ``[B, C]``, or ``[C]`` where B is 1.
            timespan: Time that the step spans: a number, or one for each sample, ``[B]`` or ``[B, 1]``.

        Returns:
            The output ``[B, O]``, or ``[O]`` for an input ``[C]``: a new tensor, or with ``reuse_output``
            one that the next step overwrites.

        Raises:
            ValueError: If a shape does not fit. The state is then what it was.
        """

    def refresh(self) -> None:
        """Take the layer's weights anew; the state stays.

        Raises:
            ValueError: If the layer is no longer one that the stream can run. The stream is then what it was.
        """
        dtype = dtype_of(self._layer)
        if dtype != self.dtype:
            names = (str(each).removeprefix("torch.") for each in (dtype, self.dtype))
            raise ValueError("the layer's weights are {} and were {}: make another stream".format(*names))
        self._take_weights()

    @abstractmethod
    def _take_weights(self) -> None:
        """Take the layer's weights, which have the stream's precision."""

    def reset(self) -> None:
        """Set the state to zeros, as before the first step."""
        for part in (*self._states, *self._memory):
            part[...] = 0.0

    @property
    def state(self) -> Hidden:
        """The state after the last step: a copy ``[B, H]``, or a pair of them with ``mixed_memory``.

        It can be set to a state that was read here or that the layer returned.
        """
        h = torch.from_numpy(np.concatenate(self._states, 1))
        return (h, torch.from_numpy(self._memory[0].copy())) if self._memory else h

    @state.setter
    def state(self, value: Hidden) -> None:
        parts = (value,) if isinstance(value, Tensor) else tuple(value)
        if len(parts) != 1 + len(self._memory):
            need = "a pair (h, c)" if self._memory else "one tensor"
            raise ValueError(f"the state has {len(parts)} parts: this stream needs {need}")
        expected = (self.batch_size, self.state_size)
        for part in parts:
            if part.shape != expected and (self.batch_size != 1 or part.shape != expected[1:]):
                raise ValueError(f"the state has shape {tuple(part.shape)}: this stream needs {expected}")
        whole = [part.detach().to("cpu", self.dtype).numpy().reshape(expected) for part in parts]
        ends = np.cumsum([piece.shape[1] for piece in self._states])[:-1]
        for mine, given in zip(self._states, np.split(whole[0], ends, 1), strict=True):
            mine[...] = given
        for mine, given in zip(self._memory, whole[1:], strict=True):
            mine[...] = given

    def __reduce__(self) -> Any:
        """Refuse: views and addresses of a copy would still be those of the original."""
        raise TypeError("a Stream cannot be copied or pickled: make another with layer.stream()")

    def _array(self, x: Any) -> Array:
        """Return the input as an array of shape ``[B, C]`` or ``[C]``."""
        if isinstance(x, Tensor):
            x = x.detach().cpu()
            x = x.float() if x.dtype is torch.bfloat16 else x  # NumPy has none
        array: Array = np.asarray(x)
        if array.shape != self._whole and (array.shape != self._single or self.batch_size != 1):
            forms = f"{self._whole} or {self._single}" if self.batch_size == 1 else f"{self._whole}"
            raise ValueError(f"x has shape {array.shape}: a step of this stream needs {forms}")
        return array

    def _span(self, timespan: Any) -> float | Array:
        """Return one number, or one for each sample ``[B, 1]``."""
        array = np.asarray(timespan.detach().cpu() if isinstance(timespan, Tensor) else timespan)
        if array.ndim == 0:
            return float(array)
        if array.shape not in ((self.batch_size,), (self.batch_size, 1)):
            raise ValueError(
                f"timespan has shape {array.shape}: give a number, or one entry per sample with shape "
                f"{(self.batch_size,)} or {(self.batch_size, 1)}"
            )
        return array.astype(self._states[0].dtype).reshape(-1, 1)


def dtype_of(layer: "LiquidLayer") -> torch.dtype:
    """Return the precision of a layer's weights.

    Raises:
        ValueError: If they are neither all float32 nor all float64.
    """
    dtypes = {parameter.dtype for parameter in layer.parameters()}
    if dtypes not in ({torch.float32}, {torch.float64}):
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise ValueError(f"the layer's weights are {names}: a stream needs float32 or float64")
    return dtypes.pop()
