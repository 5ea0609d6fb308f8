"""What is measured: layers of one size, in every implementation there is of it.

Shapes: B batch, T steps, C input channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ncps.torch
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn

from liquid_train.nn import LTC, CfC
from liquid_train.nn.native.library import without_kernels

CHANNELS = 6
OURS = ("plain", "PyTorch", "kernels")


@dataclass
class Implementation:
    """A layer, and how it is called.

    Attributes:
        name: ``"ncps"``, one of ``OURS``, ``"LSTM"`` or ``"GRU"``.
        layer: The layer.
        forward: Returns the outputs of a batch.
        kernels: Whether the kernels may run.
        seconds: What was measured.
    """

    name: str
    layer: Any
    forward: Callable[[], Tensor]
    kernels: bool = True
    seconds: list[float] = field(default_factory=list)

    def context(self) -> contextlib.AbstractContextManager[None]:
        """Return what calls must be within."""
        return contextlib.nullcontext() if self.kernels else without_kernels()

    def train(self) -> None:
        """Run a forward and a backward pass."""
        self.layer.zero_grad(set_to_none=True)
        self.forward().square().mean().backward()

    def infer(self) -> None:
        """Run a forward pass without autograd."""
        with torch.no_grad():
            self.forward()


@dataclass(frozen=True)
class Case:
    """A layer of some size on batches of some shape.

    Attributes:
        name: What the row is called.
        kind: ``"CfC"`` or ``"LTC"``.
        hidden: Hidden units, or neurons of the wiring.
        motors: Motor neurons of an ``AutoNCP`` wiring, or None without one.
        B: Batch.
        T: Steps.
        spans: Whether each step of each sample has its own time span.
        options: Further arguments of the layer.
    """

    name: str
    kind: str
    hidden: int
    motors: int | None
    B: int
    T: int
    spans: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    def build(self, device: str = "cpu") -> list[Implementation]:
        """Return every implementation, all liquid ones with the same weights."""
        x = torch.randn(self.B, self.T, CHANNELS, device=device)
        spans = torch.rand(self.B, self.T, 1, device=device) + 0.5 if self.spans else None
        units = self.hidden if self.motors is None else AutoNCP(self.hidden, self.motors)
        ours: type[Any] = {"CfC": CfC, "LTC": LTC}[self.kind]
        reference = getattr(ncps.torch, self.kind)(CHANNELS, units, **dict(self.options)).to(device)
        made = [Implementation("ncps", reference, _reference(reference, x, spans))]
        for name in OURS:
            layer = ours(CHANNELS, units, **dict(self.options)).to(device)
            layer.load_state_dict(reference.state_dict())
            layer.fast = "auto" if name != "plain" else False
            made.append(Implementation(name, layer, _ours(layer, x, spans), name == "kernels"))
        for kind in (nn.LSTM, nn.GRU):
            other = kind(CHANNELS, self.hidden, batch_first=True).to(device)
            made.append(Implementation(kind.__name__, other, _first(other, x)))
        return made


def _reference(layer: Any, x: Tensor, spans: Tensor | None) -> Callable[[], Tensor]:
    """Call an ``ncps`` layer; its own loop fails on time spans of a batch, so its cell is driven here."""
    if spans is None:
        return _first(layer, x)

    def run() -> Tensor:
        state, outputs = x.new_zeros(len(x), layer.state_size), []
        for input, span in zip(x.unbind(1), spans.unbind(1), strict=True):
            output, state = layer.rnn_cell(input, state, span)
            outputs.append(output)
        return torch.stack(outputs, 1)

    return run


def _ours(layer: Any, x: Tensor, spans: Tensor | None) -> Callable[[], Tensor]:
    def run() -> Tensor:
        output: Tensor = layer(x, timespans=spans)[0]
        return output

    return run


def _first(layer: Any, x: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        output: Tensor = layer(x)[0]
        return output

    return run


def _cfc(name: str, B: int, T: int, spans: bool = False, **options: Any) -> Case:
    return Case(name, "CfC", 64, None, B, T, spans, tuple(options.items()))


TRAINING = [
    _cfc("CfC-64, batch 32, length 32", 32, 32),
    _cfc("CfC-64, batch 64, length 32", 64, 32),
    _cfc("CfC-64, batch 64, length 100", 64, 100),
    _cfc("CfC-64, batch 256, length 32", 256, 32),
    _cfc("CfC-64 with time spans, batch 64, length 32", 64, 32, True),
    _cfc("CfC-64 no_gate, batch 64, length 32", 64, 32, mode="no_gate"),
    _cfc("CfC-64 pure, batch 64, length 32", 64, 32, mode="pure"),
    Case("CfC AutoNCP(64, 8), batch 64, length 32", "CfC", 64, 8, 64, 32),
    Case("LTC AutoNCP(32, 4), batch 64, length 32", "LTC", 32, 4, 64, 32),
    Case("LTC-32 dense, batch 64, length 32", "LTC", 32, None, 64, 32),
]

GPU = [
    _cfc("CfC-64, batch 64, length 256", 64, 256),
    _cfc("CfC-64, batch 1024, length 256", 1024, 256),
    _cfc("CfC-64 with time spans, batch 64, length 256", 64, 256, True),
    Case("CfC AutoNCP(64, 8), batch 64, length 256", "CfC", 64, 8, 64, 256),
    Case("LTC-32 dense, batch 64, length 64", "LTC", 32, None, 64, 64),
]

INFERENCE = [
    _cfc("CfC-64, batch 1, length 100", 1, 100),
    _cfc("CfC-64, batch 64, length 100", 64, 100),
    Case("CfC AutoNCP(64, 8), batch 64, length 32", "CfC", 64, 8, 64, 32),
    Case("LTC AutoNCP(32, 4), batch 1, length 32", "LTC", 32, 4, 1, 32),
    Case("LTC AutoNCP(32, 4), batch 64, length 32", "LTC", 32, 4, 64, 32),
    Case("LTC-32 dense, batch 64, length 32", "LTC", 32, None, 64, 32),
]

STEPS = [
    _cfc("CfC-64", 1, 1),
    _cfc("CfC-64 pure", 1, 1, mode="pure"),
    Case("CfC AutoNCP(64, 8)", "CfC", 64, 8, 1, 1),
    Case("LTC AutoNCP(32, 4)", "LTC", 32, 4, 1, 1),
    Case("LTC-32 dense", "LTC", 32, None, 1, 1),
]

MEMORY = [
    _cfc("CfC-64, batch 64, length 64", 64, 64),
    Case("CfC AutoNCP(64, 8), batch 64, length 64", "CfC", 64, 8, 64, 64),
    Case("LTC AutoNCP(32, 4), batch 64, length 64", "LTC", 32, 4, 64, 64),
    Case("LTC-32 dense, batch 64, length 64", "LTC", 32, None, 64, 64),
]
