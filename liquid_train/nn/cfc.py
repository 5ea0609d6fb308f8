"""The closed-form continuous-time network over sequences.

Source: Hasani et al. 2022, "Closed-form continuous-time neural networks", doi 10.1038/s42256-022-00556-7.
"""

from ncps.wirings import Wiring

from liquid_train.nn._checks import check_at_least, check_choice
from liquid_train.nn.activations import ACTIVATIONS
from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.layer import Fast, LiquidLayer
from liquid_train.nn.wired_cfc_cell import WiredCfCCell


class CfC(LiquidLayer):
    """A CfC, plain or wired, with the arguments, parameters and numbers of ``ncps.torch.CfC``.

    ``CfCCell`` has the equations, ``forward`` the shapes.

    Args:
        input_size: Input channels; None to take them from a built wiring.
        units: Number of hidden units, or an ``ncps`` wiring (the layer works on a copy).
        proj_size: Width that a linear map brings the output to, or None to leave it.
        return_sequences: Whether to return the output of every step or only each sequence's last.
        batch_first: Whether sequences come as ``[B, T, C]`` or ``[T, B, C]``.
        mixed_memory: Whether to put a memory cell before the liquid cell (Lechner & Hasani 2020, arXiv
            2006.04418).
        mode: ``"default"``, ``"pure"`` or ``"no_gate"``.
        activation: Activation of the backbone: ``"lecun_tanh"``, ``"silu"``, ``"relu"``, ``"tanh"`` or
            ``"gelu"``.
        backbone_units: Width of each backbone layer, 128 by default. Not with a wiring.
        backbone_layers: Number of backbone layers, 1 by default. Not with a wiring.
        backbone_dropout: Dropout in the backbone, 0 by default. Not with a wiring.
        strict_wiring: Follow the wiring to the letter instead of as ``ncps`` does; see ``WiredCfCCell``.
        fast: Whether to run whole sequences at once, much faster with the same numbers: ``"auto"`` where
            that can serve, True to raise an error where it cannot, False for the plain loop.

    Raises:
        ValueError: If an argument is outside the values above.
    """

    rnn_cell: CfCCell | WiredCfCCell

    def __init__(
        self,
        input_size: int | None,
        units: int | Wiring,
        proj_size: int | None = None,
        return_sequences: bool = True,
        batch_first: bool = True,
        mixed_memory: bool = False,
        mode: str = "default",
        activation: str = "lecun_tanh",
        backbone_units: int | None = None,
        backbone_layers: int | None = None,
        backbone_dropout: float | None = None,
        *,
        strict_wiring: bool = False,
        fast: Fast = "auto",
    ) -> None:
        check_choice("activation", activation, ACTIVATIONS)
        wired = isinstance(units, Wiring)
        cell: CfCCell | WiredCfCCell
        if wired:
            _check_no_backbone(units=backbone_units, layers=backbone_layers, dropout=backbone_dropout)
            cell = WiredCfCCell(input_size, units, mode, strict_wiring=strict_wiring)
        else:
            if strict_wiring:
                raise ValueError(
                    f"strict_wiring=True but units={units} is no wiring: give an ncps wiring as units"
                )
            cell = CfCCell(
                check_at_least("input_size", input_size, 1),
                check_at_least("units", units, 1),
                mode,
                activation,
                128 if backbone_units is None else backbone_units,
                1 if backbone_layers is None else backbone_layers,
                0.0 if backbone_dropout is None else backbone_dropout,
            )
        super().__init__(cell, proj_size, return_sequences, batch_first, mixed_memory, fast)
        self.wired_mode = wired

    @property
    def wiring(self) -> Wiring | None:
        """The layer's own built copy of the wiring, or None without one."""
        return self.rnn_cell.wiring if isinstance(self.rnn_cell, WiredCfCCell) else None


def _check_no_backbone(**options: float | None) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"backbone_{name}={value!r} with a wiring, which has no backbone: leave it out")
