"""One step after another of a layer with frozen weights, at low latency."""

from typing import TYPE_CHECKING

from liquid_train.nn.streaming.numpy_stream import NumpyStream
from liquid_train.nn.streaming.stream import Stream

if TYPE_CHECKING:
    from liquid_train.nn.layer import LiquidLayer

__all__ = ["Stream", "make_stream"]


def make_stream(layer: "LiquidLayer", batch_size: int, reuse_output: bool) -> Stream:
    """Return the quickest stream of a layer that there is on this machine."""
    return NumpyStream(layer, batch_size, reuse_output)
