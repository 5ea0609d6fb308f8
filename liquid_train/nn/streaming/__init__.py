"""One step after another of a layer with frozen weights, at low latency."""

from liquid_train.nn.streaming.make import make_stream
from liquid_train.nn.streaming.stream import Stream

__all__ = ["Stream", "make_stream"]
