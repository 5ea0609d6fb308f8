"""One step of the memory cell that mixed-memory networks put before the liquid cell.

Source: Lechner & Hasani 2020, "Learning long-term dependencies in irregularly-sampled time series",
arXiv 2006.04418.

Shapes: B batch, C input channels, H hidden units.
"""

import torch
from torch import Tensor, nn


class MemoryCell(nn.Module):
    """An LSTM cell with the forget gate's bias raised by one.

    Args:
        input_size: Input channels C.
        hidden_size: Hidden units H.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.input_map = nn.Linear(input_size, 4 * hidden_size, bias=True)
        self.recurrent_map = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        nn.init.xavier_uniform_(self.input_map.weight)
        nn.init.uniform_(self.input_map.bias, -0.1, 0.1)
        nn.init.orthogonal_(self.recurrent_map.weight)

    def forward(self, inputs: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            inputs: ``[B, C]``.
            states: Hidden state and cell state, ``[B, H]`` each.

        Returns:
            The new hidden state and cell state, ``[B, H]`` each.
        """
        hidden, cell = states
        z = self.input_map(inputs) + self.recurrent_map(hidden)
        candidate, input_gate, forget_gate, output_gate = z.chunk(4, 1)
        kept = cell * torch.sigmoid(forget_gate + 1.0)
        new_cell = kept + torch.tanh(candidate) * torch.sigmoid(input_gate)
        return torch.tanh(new_cell) * torch.sigmoid(output_gate), new_cell
