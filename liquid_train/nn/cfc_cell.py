"""One step of the closed-form continuous-time network (CfC).

Source: Hasani et al. 2022, "Closed-form continuous-time neural networks", doi 10.1038/s42256-022-00556-7.

Shapes: B batch, C input channels, H hidden units, K features that the heads read.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liquid_train.nn._checks import check_at_least, check_channels, check_choice, time_column
from liquid_train.nn.activations import ACTIVATIONS
from liquid_train.nn.native.cells import cfc_step
from liquid_train.nn.native.step import quick_step
from liquid_train.nn.watch import Kept

MODES = ("default", "pure", "no_gate")


class CfCCell(nn.Module):
    """Advance the hidden state of a CfC by one step.

    A backbone reads input and state, ``z = backbone([x, h])``, and linear heads read ``z``. With ``t`` the
    time that the step spans, ``⊙`` the elementwise product and ``σ`` the logistic function, the new state is

    - ``"default"``: ``(1 - s) ⊙ tanh(ff1(z)) + s ⊙ tanh(ff2(z))`` with the time gate
      ``s = σ(time_a(z) · t + time_b(z))``, the paper's gated closed-form network;
    - ``"no_gate"``: ``tanh(ff1(z)) + s ⊙ tanh(ff2(z))``;
    - ``"pure"``: ``A - A ⊙ exp(-t · (|w_tau| + |f|)) ⊙ f`` with ``f = ff1(z)``, the closed-form solution
      itself.

    Args:
        input_size: Input channels C.
        hidden_size: Hidden units H.
        mode: ``"default"``, ``"pure"`` or ``"no_gate"``.
        backbone_activation: ``"lecun_tanh"``, ``"silu"``, ``"relu"``, ``"tanh"`` or ``"gelu"``.
        backbone_units: Width of each backbone layer.
        backbone_layers: Number of backbone layers; with 0 the heads read ``[x, h]`` directly.
        backbone_dropout: Dropout after each backbone layer but the first, or after the only one.
        sparsity_mask: Array ``[K, H]``; the heads ff1 and ff2 keep only the weights where it is not zero.
        strict_wiring: Mask the time gates as well, and keep the mask's zeros when a state dict is loaded.

    Attributes:
        fast: Whether kernels in C++ may run steps without autograd, with the same numbers.

    Raises:
        ValueError: If an argument is outside the values above.
    """

    fast = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        mode: str = "default",
        backbone_activation: str = "lecun_tanh",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        backbone_dropout: float = 0.0,
        sparsity_mask: npt.NDArray[Any] | None = None,
        *,
        strict_wiring: bool = False,
    ) -> None:
        super().__init__()
        check_at_least("input_size", input_size, 1)
        check_at_least("hidden_size", hidden_size, 1)
        check_choice("mode", mode, MODES)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.mode = mode
        self.strict_wiring = strict_wiring
        self._kept = Kept()

        features = input_size + hidden_size
        self.backbone = _backbone(
            features, backbone_units, backbone_layers, backbone_activation, backbone_dropout
        )
        if self.backbone is not None:
            features = backbone_units
        self._mask = _head_mask(sparsity_mask, features, hidden_size)
        self.sparsity_mask: Tensor | None
        self.register_buffer("sparsity_mask", None if self._mask is None else self._mask_tensor())

        self.ff1 = nn.Linear(features, hidden_size)
        if mode == "pure":
            self.w_tau = nn.Parameter(torch.empty(1, hidden_size))
            self.A = nn.Parameter(torch.empty(1, hidden_size))
        else:
            self.ff2 = nn.Linear(features, hidden_size)
            self.time_a = nn.Linear(features, hidden_size)
            self.time_b = nn.Linear(features, hidden_size)
        self._initialise_weights()

    @property
    def sensory_size(self) -> int:
        """Number of input channels C."""
        return self.input_size

    @property
    def state_size(self) -> int:
        """Number of hidden units H."""
        return self.hidden_size

    @property
    def output_size(self) -> int:
        """Number of outputs: the hidden units H."""
        return self.hidden_size

    def reset_parameters(self) -> None:
        """Draw all weights anew and restore the mask, as after ``to_empty()``."""
        for linear in self._linears():
            linear.reset_parameters()
        if self.sparsity_mask is not None:
            self.sparsity_mask.copy_(self._mask_tensor())
        self._initialise_weights()

    def forward(self, input: Tensor, hx: Tensor, ts: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            input: ``[B, C]``.
            hx: Hidden state ``[B, H]``.
            ts: Time that the step spans: a number, or one per sample as ``[B]`` or ``[B, 1]``.

        Returns:
            The new hidden state ``[B, H]`` twice: as output and as state.
        """
        ts = time_column("ts", ts, hx)
        if self.fast and type(self) is CfCCell:
            result = quick_step(self, cfc_step, input, hx, ts)
            if result is not None:
                return result
        check_channels(input, self.input_size)
        z = torch.cat([input, hx], 1)
        if self.backbone is not None:
            z = self.backbone(z)
        new_hidden = self._closed_form(z, ts) if self.mode == "pure" else self._gated(z, ts)
        return new_hidden, new_hidden

    def _closed_form(self, z: Tensor, ts: Tensor | float) -> Tensor:
        return closed_form(self.A, self.w_tau, self._synapses(self.ff1, z), ts)

    def _gated(self, z: Tensor, ts: Tensor | float) -> Tensor:
        time_head = self._synapses if self.strict_wiring else _apply
        heads = self._synapses(self.ff1, z), self._synapses(self.ff2, z)
        return gated(self.mode, ts, *heads, time_head(self.time_a, z), time_head(self.time_b, z))

    def _synapses(self, head: nn.Linear, z: Tensor) -> Tensor:
        """Apply a head through the wiring's synapses only."""
        if self.sparsity_mask is None:
            return _apply(head, z)
        return F.linear(z, head.weight * self.sparsity_mask, head.bias)

    def _initialise_weights(self) -> None:
        for linear in self._linears():
            nn.init.xavier_uniform_(linear.weight)
        if self.mode == "pure":
            nn.init.zeros_(self.w_tau)
            nn.init.ones_(self.A)

    def _linears(self) -> list[nn.Linear]:
        return [module for module in self.modules() if isinstance(module, nn.Linear)]

    def _mask_tensor(self) -> Tensor:
        return torch.as_tensor(self._mask, dtype=torch.get_default_dtype())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        key = f"{prefix}sparsity_mask"
        if self.strict_wiring and self.sparsity_mask is not None and key in state_dict:
            # A checkpoint written without strict wiring has an all-ones recurrence: keep this wiring's zeros.
            loaded = state_dict[key]
            state_dict[key] = loaded * self._mask_tensor().to(loaded)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _apply(head: nn.Linear, z: Tensor) -> Tensor:
    output: Tensor = head(z)
    return output


def _backbone(
    features: int, units: int, layers: int, activation: str, dropout: float
) -> nn.Sequential | None:
    """Stack the backbone; a module's place in the stack is part of its name in a state dict."""
    check_choice("backbone_activation", activation, ACTIVATIONS)
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"backbone_dropout={dropout!r} must be a probability between 0 and 1")
    if check_at_least("backbone_layers", layers, 0) == 0:
        return None
    check_at_least("backbone_units", units, 1)
    modules: list[nn.Module] = []
    for index in range(layers):
        modules += [nn.Linear(features, units), ACTIVATIONS[activation]()]
        if dropout > 0.0 and (index > 0 or layers == 1):
            modules.append(nn.Dropout(dropout))
        features = units
    return nn.Sequential(*modules)


def _head_mask(mask: npt.NDArray[Any] | None, features: int, hidden_size: int) -> npt.NDArray[Any] | None:
    """Turn a signed mask ``[K, H]`` into ones and zeros in the layout of a Linear's weight, ``[H, K]``."""
    if mask is None:
        return None
    if mask.shape != (features, hidden_size):
        raise ValueError(
            f"sparsity_mask has shape {mask.shape}: "
            f"give one row per feature of the heads and one column per hidden unit, {(features, hidden_size)}"
        )
    return np.ascontiguousarray(np.abs(mask.T))


def closed_form(a: Tensor, w_tau: Tensor, f: Tensor, t: Tensor | float) -> Tensor:
    """Return the new state of mode ``"pure"`` from its head ``f`` ``[B, H]``."""
    return a - a * torch.exp(-t * (w_tau.abs() + f.abs())) * f


def gated(mode: str, t: Tensor | float, ff1: Tensor, ff2: Tensor, time_a: Tensor, time_b: Tensor) -> Tensor:
    """Return the new state of the gated modes from their heads ``[B, H]``."""
    first, second = torch.tanh(ff1), torch.tanh(ff2)
    gate = torch.sigmoid(time_a * t + time_b)
    return first + gate * second if mode == "no_gate" else first * (1.0 - gate) + gate * second
