"""The liquid time-constant network over sequences.

Source: Hasani et al. 2021, "Liquid time-constant networks", arXiv 2006.04439.
"""

from ncps.wirings import FullyConnected, Wiring

from liquid_train.nn._checks import check_at_least
from liquid_train.nn.layer import Fast, LiquidLayer
from liquid_train.nn.ltc_cell import LTCCell


class LTC(LiquidLayer):
    """An LTC, dense or wired, with the arguments, parameters and numbers of ``ncps.torch.LTC``.

    ``LTCCell`` has the equations, ``forward`` the shapes.

    Args:
        input_size: Input channels; None to take them from a built wiring.
        units: Number of neurons, densely connected, or an ``ncps`` wiring (the layer works on a copy).
        return_sequences: Whether to return the output of every step or only each sequence's last.
        batch_first: Whether sequences come as ``[B, T, C]`` or ``[T, B, C]``.
        mixed_memory: Whether to put a memory cell before the liquid cell (Lechner & Hasani 2020, arXiv
            2006.04418).
        input_mapping: ``"affine"`` (scale and shift each input), ``"linear"`` (scale) or None.
        output_mapping: ``"affine"``, ``"linear"`` or None, for the motor neurons.
        ode_unfolds: Number of solver parts in a step.
        epsilon: Small conductance that keeps the solver's denominator from zero.
        implicit_param_constraints: Keep parameters positive by a softplus; when False, call
            ``apply_weight_constraints`` after each optimizer step.
        fast: Whether to run whole sequences at once, much faster with the same numbers: ``"auto"`` where
            that can serve, True to raise an error where it cannot, False for the plain loop.

    Raises:
        ValueError: If an argument is outside the values above.
    """

    rnn_cell: LTCCell

    def __init__(
        self,
        input_size: int | None,
        units: int | Wiring,
        return_sequences: bool = True,
        batch_first: bool = True,
        mixed_memory: bool = False,
        input_mapping: str | None = "affine",
        output_mapping: str | None = "affine",
        ode_unfolds: int = 6,
        epsilon: float = 1e-8,
        implicit_param_constraints: bool = True,
        *,
        fast: Fast = "auto",
    ) -> None:
        if not isinstance(units, Wiring):
            check_at_least("units", units, 1)
            units = FullyConnected(units)
        cell = LTCCell(
            units,
            input_size,
            input_mapping,
            output_mapping,
            ode_unfolds,
            epsilon,
            implicit_param_constraints,
        )
        super().__init__(cell, None, return_sequences, batch_first, mixed_memory, fast)

    @property
    def wiring(self) -> Wiring:
        """The layer's own built copy of the wiring."""
        return self.rnn_cell.wiring

    @property
    def sensory_size(self) -> int:
        """Number of input channels."""
        return self.rnn_cell.sensory_size

    @property
    def motor_size(self) -> int:
        """Number of motor neurons."""
        return self.rnn_cell.motor_size

    @property
    def synapse_count(self) -> int:
        """Number of synapses between neurons."""
        return self.rnn_cell.synapse_count

    @property
    def sensory_synapse_count(self) -> int:
        """Number of synapses from input channels to neurons."""
        return self.rnn_cell.sensory_synapse_count

    def apply_weight_constraints(self) -> None:
        """Clip the parameters that must not be negative, unless a softplus keeps them so."""
        self.rnn_cell.apply_weight_constraints()
