"""One step of a CfC whose neurons are wired as a sparse circuit.

Source: CfC as in ``cfc_cell``; the circuit as in Lechner et al. 2020, doi 10.1038/s42256-020-00237-3.

Shapes: B batch, C input channels, H neurons of all layers, N neurons of one layer, O outputs.
"""

from typing import cast

import torch
from ncps.wirings import Wiring
from torch import Tensor

from liquid_train.nn._checks import check_channels
from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.wired_cell import WiredCell
from liquid_train.nn.wirings import layer_masks


class WiredCfCCell(WiredCell):
    """Advance the hidden state of a wired CfC by one step.

    Each layer of the wiring is a ``CfCCell`` without backbone whose heads are masked by the layer's
    synapses; it reads the new state of the layer before it and its own old state. The hidden state holds
    the layers one after the other.

    Args:
        input_size: Input channels C, or None to take them from a built wiring.
        wiring: An ``ncps`` wiring. The cell works on a copy.
        mode: ``"default"``, ``"pure"`` or ``"no_gate"``; see ``CfCCell``.
        strict_wiring: Follow the wiring to the letter. By default, as in ``ncps``, the time gates read
            every input of their layer, each neuron reads its whole layer, and the whole last layer is the
            output. When True, absent synapses carry nothing anywhere and only motor neurons are output.

    Raises:
        ValueError: If the mode is unknown, or the wiring does not fit ``input_size``.
    """

    def __init__(
        self, input_size: int | None, wiring: Wiring, mode: str = "default", *, strict_wiring: bool = False
    ) -> None:
        super().__init__(wiring, input_size)
        self.strict_wiring = strict_wiring
        for index, mask in enumerate(layer_masks(self.wiring, strict_wiring)):
            rows, neurons = mask.shape
            cell = CfCCell(
                rows - neurons,
                neurons,
                mode,
                backbone_layers=0,
                sparsity_mask=mask,
                strict_wiring=strict_wiring,
            )
            self.add_module(f"layer_{index}", cell)

    @property
    def output_size(self) -> int:
        """Number of outputs O: the motor neurons, or the whole last layer unless ``strict_wiring``."""
        return self.motor_size if self.strict_wiring else self.layer_sizes[-1]

    @property
    def num_layers(self) -> int:
        """Number of layers in the wiring."""
        return len(self.layer_sizes)

    @property
    def layer_sizes(self) -> list[int]:
        """Number of neurons in each layer, in the order of the hidden state."""
        layers = range(self.wiring.num_layers)
        return [len(self.wiring.get_neurons_of_layer(layer)) for layer in layers]

    def reset_parameters(self) -> None:
        """Draw all weights anew and restore the masks from the wiring, as after ``to_empty()``."""
        for cell in self.children():
            cast(CfCCell, cell).reset_parameters()

    def forward(self, input: Tensor, hx: Tensor, timespans: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            input: ``[B, C]``.
            hx: Hidden state ``[B, H]``.
            timespans: Time that the step spans: a number, or one per sample as ``[B]`` or ``[B, 1]``.

        Returns:
            The output ``[B, O]`` and the new hidden state ``[B, H]``.
        """
        check_channels(input, self.sensory_size)
        new_states = []
        for cell, state in zip(self.children(), torch.split(hx, self.layer_sizes, dim=1), strict=True):
            input, _ = cell(input, state, timespans)
            new_states.append(input)
        return input[:, : self.output_size], torch.cat(new_states, dim=1)
