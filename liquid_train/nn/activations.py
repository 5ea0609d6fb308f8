"""The activations of a CfC's backbone."""

from typing import Any

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

_KNOWN = frozenset(ACTIVATIONS.values())


def common_activation(backbone: nn.Module) -> str | None:
    """Return the class name of the activation after every layer, or None where it is no such backbone.

    A backbone's modules can be replaced by others: the activations may differ, lack after a layer, or be none
    that CfC names.
    """
    if type(backbone) is not nn.Sequential:
        return None
    parts: list[Any] = [part for part in backbone if type(part) is not nn.Dropout]
    linears, activations = parts[::2], parts[1::2]
    kinds = {type(part) for part in activations}
    if len(kinds) != 1 or len(linears) != len(activations):
        return None
    (kind,) = kinds
    exact = kind is not nn.GELU or all(part.approximate == "none" for part in activations)
    mapped = all(isinstance(part, nn.Linear) for part in linears)
    return kind.__name__ if kind in _KNOWN and exact and mapped else None
