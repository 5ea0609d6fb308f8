"""From the options of a task to a liquid network with a linear readout.

Shape letters: B series in a batch, T time steps, C channels, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ncps.wirings
import torch
from torch import Tensor, nn

from liquid_train.data import Batch
from liquid_train.errors import InputError
from liquid_train.nn import LTC, CfC

CELLS = {"cfc": CfC, "ltc": LTC}
READOUTS = ("last", "mean")
WIRINGS = ("AutoNCP", "FullyConnected", "NCP", "Random")


class SequenceNetwork(nn.Module):
    """A liquid layer, and a linear map of its last or its mean output over each series.

    A layer with `return_sequences` returns its output at every step, of which the mean over a series is
    used; one without returns the last.
    """

    def __init__(self, layer: CfC | LTC, outputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.linear = nn.Linear(layer.output_size, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Return [B, K]."""
        output, _ = self.layer(batch.inputs, timespans=batch.timespans, lengths=batch.lengths)
        if self.layer.return_sequences:
            output = mean_over_steps(output, batch.lengths)
        result: Tensor = self.linear(output)
        return result


def mean_over_steps(values: Tensor, lengths: Tensor) -> Tensor:
    """Return [B, C], the mean of `values` [B, T, C] over the first `lengths` [B] steps of each series."""
    steps = torch.arange(values.shape[1], device=values.device)
    valid = (steps < lengths[:, None])[..., None]
    return values.where(valid, 0).sum(1) / lengths[:, None]


def build_network(
    cell: str,
    units: int,
    wiring: Mapping[str, Any] | None,
    cell_options: Mapping[str, Any] | None,
    readout: str,
    input_size: int,
    outputs: int,
) -> SequenceNetwork:
    """Build the network of a task; the arguments are those of the task.

    Raises:
        InputError: the cell, the readout or the wiring is unknown, or does not take its options.
    """
    if cell not in CELLS:
        raise InputError(f"model.cell={cell}: must be one of {', '.join(CELLS)}")
    size = units if wiring is None else build_wiring(wiring)
    if readout not in READOUTS:
        raise InputError(f"model.readout={readout}: must be one of {', '.join(READOUTS)}")
    try:
        layer = CELLS[cell](input_size, size, return_sequences=readout == "mean", **(cell_options or {}))
    except TypeError as error:
        raise InputError(f"model.cell_options={dict(cell_options or {})}: {error}") from error
    except ValueError as error:
        raise InputError(f"model: {error}") from error
    return SequenceNetwork(layer, outputs)


def build_wiring(spec: Mapping[str, Any]) -> ncps.wirings.Wiring:
    """Build a wiring of `ncps` from its class name `type` and its arguments.

    Raises:
        InputError: `type` is missing or unknown, or an argument is.
    """
    arguments = dict(spec)
    kind = arguments.pop("type", None)
    if kind not in WIRINGS:
        raise InputError(f"model.wiring.type={kind}: must be one of {', '.join(WIRINGS)}")
    try:
        return getattr(ncps.wirings, kind)(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"model.wiring={dict(spec)}: {error}") from error
