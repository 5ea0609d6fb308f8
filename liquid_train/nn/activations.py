"""The activations of a CfC's backbone."""

import torch
from torch import Tensor, nn


class LeCunTanh(nn.Module):
    """``1.7159 · tanh(0.666 · x)``: unit gain for inputs of unit variance (LeCun et al. 1998)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        return 1.7159 * torch.tanh(0.666 * x)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "lecun_tanh": LeCunTanh,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


def common_activation(backbone: nn.Sequential) -> str | None:
    """Return the class name of the activation after every layer, or None if they differ or CfC names none such.

    A backbone's modules can be replaced by others.
    """
    found = [part for part in backbone if not isinstance(part, nn.Linear | nn.Dropout)]
    (kind, *others) = {type(part) for part in found}
    known = kind in ACTIVATIONS.values() and not others
    exact = all(getattr(part, "approximate", "none") == "none" for part in found)
    return kind.__name__ if known and exact else None
