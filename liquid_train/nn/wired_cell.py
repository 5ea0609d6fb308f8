"""What the cells that follow a wiring have in common."""

from typing import cast

import numpy as np
from ncps.wirings import Wiring
from torch import nn

from liquid_train.nn.watch import Kept
from liquid_train.nn.wirings import built_copy


class WiredCell(nn.Module):
    """A cell with a private built copy of a wiring, and the sizes of that wiring.

    Args:
        wiring: An ``ncps`` wiring.
        input_size: Input channels, or None to take them from a built wiring.

    Raises:
        ValueError: If the wiring does not fit ``input_size``.
    """

    def __init__(self, wiring: Wiring, input_size: int | None) -> None:
        super().__init__()
        self.wiring = built_copy(wiring, input_size)
        self._kept = Kept()

    @property
    def state_size(self) -> int:
        """Number of neurons."""
        return cast(int, self.wiring.units)

    @property
    def sensory_size(self) -> int:
        """Number of input channels."""
        return cast(int, self.wiring.input_dim)

    @property
    def motor_size(self) -> int:
        """Number of motor neurons."""
        return cast(int, self.wiring.output_dim)

    @property
    def output_size(self) -> int:
        """Number of outputs."""
        return self.motor_size

    @property
    def synapse_count(self) -> int:
        """Number of synapses between neurons."""
        return int(np.count_nonzero(self.wiring.adjacency_matrix))

    @property
    def sensory_synapse_count(self) -> int:
        """Number of synapses from input channels to neurons."""
        return int(np.count_nonzero(self.wiring.sensory_adjacency_matrix))
