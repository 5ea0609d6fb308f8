"""Choose the stream of a layer."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from liquid_train.nn.ltc_cell import LTCCell
from liquid_train.nn.native.library import native
from liquid_train.nn.streaming.native_stream import NativeStream
from liquid_train.nn.streaming.numpy_stream import NumpyStream
from liquid_train.nn.streaming.stream import Stream

if TYPE_CHECKING:
    from liquid_train.nn.layer import LiquidLayer


def make_stream(layer: "LiquidLayer", batch_size: int, reuse_output: bool) -> Stream:
    """Return the quickest stream of a layer that there is on this machine."""
    library = native() if _has_kernels(layer) else None
    if library is None:
        return NumpyStream(layer, batch_size, reuse_output)
    return NativeStream(layer, batch_size, reuse_output, library)


def _has_kernels(layer: "LiquidLayer") -> bool:
    # Those of an LTC have no map after it.
    mapped = isinstance(layer.rnn_cell, LTCCell) and isinstance(layer.fc, nn.Linear)
    single = all(part.dtype is torch.float32 for part in layer.parameters())
    return layer.lstm is None and not mapped and single
