"""One step of the liquid time-constant network (LTC).

Sources: Hasani et al. 2021, "Liquid time-constant networks", arXiv 2006.04439: the solver is eq. 3 and
algorithm 1; the wiring as in Lechner et al. 2020, doi 10.1038/s42256-020-00237-3.

Shapes: B batch, C input channels, H neurons, M motor neurons, S sources of synapses (C or H).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from ncps.wirings import Wiring
from torch import Tensor, nn

from liquid_train.nn._checks import check_at_least, check_channels, check_choice, time_column
from liquid_train.nn.native.cells import ltc_step
from liquid_train.nn.native.step import quick_step
from liquid_train.nn.wired_cell import WiredCell

MAPPINGS = ("affine", "linear", None)

_INITIAL_RANGES = {
    "gleak": (0.001, 1.0),
    "vleak": (-0.2, 0.2),
    "cm": (0.4, 0.6),
    "sigma": (3.0, 8.0),
    "mu": (0.3, 0.8),
    "w": (0.001, 1.0),
    "sensory_sigma": (3.0, 8.0),
    "sensory_mu": (0.3, 0.8),
    "sensory_w": (0.001, 1.0),
}


class LTCCell(WiredCell):
    """Advance the membrane potentials of a circuit of LTC neurons by one step.

    Neuron i with capacitance ``cm``, leak ``gleak``, ``vleak`` and synapses from sources j (neurons and
    inputs) obeys::

        cm_i dv_i/dt = gleak_i (vleak_i - v_i) + sum_j g_ij (erev_ij - v_i)
        g_ij         = w_ij sigmoid(sigma_ij (v_j - mu_ij))

    The step is split into ``ode_unfolds`` parts of length d. Each holds the conductances g at the old
    potentials and solves for the new ones (eq. 3)::

              cm_i v_i + d (gleak_i vleak_i + sum_j g_ij erev_ij)
        v_i <- ---------------------------------------------------
               cm_i + d (gleak_i + sum_j g_ij + epsilon)

    Args:
        wiring: An ``ncps`` wiring. The cell works on a copy.
        in_features: Input channels C, or None to take them from a built wiring.
        input_mapping: ``"affine"`` (scale and shift each input), ``"linear"`` (scale) or None.
        output_mapping: ``"affine"``, ``"linear"`` or None, for the motor neurons.
        ode_unfolds: Number of solver parts in a step.
        epsilon: Small conductance that keeps the denominator from zero.
        implicit_param_constraints: Keep ``w``, ``sensory_w``, ``cm`` and ``gleak`` positive by a softplus.
            When False they are used as they are: call ``apply_weight_constraints`` after each optimizer step.

    Attributes:
        fast: Whether kernels in C++ may run steps without autograd, with the same numbers.

    Raises:
        ValueError: If a mapping is unknown, or the wiring does not fit ``in_features``.
    """

    fast = True
    sparsity_mask: Tensor
    sensory_sparsity_mask: Tensor

    def __init__(
        self,
        wiring: Wiring,
        in_features: int | None = None,
        input_mapping: str | None = "affine",
        output_mapping: str | None = "affine",
        ode_unfolds: int = 6,
        epsilon: float = 1e-8,
        implicit_param_constraints: bool = False,
    ) -> None:
        super().__init__(wiring, in_features)
        check_choice("input_mapping", input_mapping, MAPPINGS)
        check_choice("output_mapping", output_mapping, MAPPINGS)
        check_at_least("ode_unfolds", ode_unfolds, 1)
        self.ode_unfolds = ode_unfolds
        self.epsilon = epsilon
        self.implicit_param_constraints = implicit_param_constraints

        C, H, M = self.sensory_size, self.state_size, self.motor_size
        self.gleak, self.vleak, self.cm = (_parameter(H) for _ in range(3))
        self.sigma, self.mu, self.w, self.erev = (_parameter(H, H) for _ in range(4))
        self.sensory_sigma, self.sensory_mu, self.sensory_w, self.sensory_erev = (
            _parameter(C, H) for _ in range(4)
        )
        self.input_w = _parameter(C) if input_mapping else None
        self.input_b = _parameter(C) if input_mapping == "affine" else None
        self.output_w = _parameter(M) if output_mapping else None
        self.output_b = _parameter(M) if output_mapping == "affine" else None
        self.register_buffer("sparsity_mask", torch.empty(H, H))
        self.register_buffer("sensory_sparsity_mask", torch.empty(C, H))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters anew and restore signs and masks from the wiring, as after ``to_empty()``."""
        for name, (low, high) in _INITIAL_RANGES.items():
            parameter = self.get_parameter(name)
            parameter.copy_(torch.rand_like(parameter) * (high - low) + low)
        signs = torch.as_tensor(self.wiring.adjacency_matrix)
        sensory_signs = torch.as_tensor(self.wiring.sensory_adjacency_matrix)
        self.erev.copy_(signs)
        self.sparsity_mask.copy_(signs.abs())
        self.sensory_erev.copy_(sensory_signs)
        self.sensory_sparsity_mask.copy_(sensory_signs.abs())
        for scale, shift in ((self.input_w, self.input_b), (self.output_w, self.output_b)):
            if scale is not None:
                scale.fill_(1.0)
            if shift is not None:
                shift.fill_(0.0)

    @torch.no_grad()
    def apply_weight_constraints(self) -> None:
        """Clip the parameters that must not be negative, unless a softplus keeps them so."""
        if not self.implicit_param_constraints:
            for parameter in (self.w, self.sensory_w, self.cm, self.gleak):
                parameter.clamp_(min=0.0)

    def forward(
        self, inputs: Tensor, states: Tensor, elapsed_time: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            inputs: ``[B, C]``.
            states: Membrane potentials ``[B, H]``.
            elapsed_time: Time that the step spans: a number, or one per sample as ``[B]`` or ``[B, 1]``.

        Returns:
            The output ``[B, M]`` and the new membrane potentials ``[B, H]``.
        """
        elapsed_time = time_column("elapsed_time", elapsed_time, states)
        if self.fast and type(self) is LTCCell:
            result = quick_step(self, ltc_step, inputs, states, elapsed_time)
            if result is not None:
                return result
        check_channels(inputs, self.sensory_size)
        inputs = affine(inputs, self.input_w, self.input_b)
        new_states = self._solve(inputs, states, elapsed_time)
        return affine(new_states[:, : self.motor_size], self.output_w, self.output_b), new_states

    def _solve(self, inputs: Tensor, v: Tensor, elapsed_time: Tensor | float) -> Tensor:
        """Run the semi-implicit solver (eq. 3) from potentials ``v`` over the elapsed time."""
        sensory_w = self._positive(self.sensory_w) * self.sensory_sparsity_mask
        w = self._positive(self.w) * self.sparsity_mask
        return solve(
            *(inputs, v, elapsed_time / self.ode_unfolds, self.ode_unfolds, self.epsilon),
            *(self._positive(self.cm), self._positive(self.gleak), self.vleak),
            (sensory_w, self.sensory_mu, self.sensory_sigma, self.sensory_erev),
            (w, self.mu, self.sigma, self.erev),
        )

    def _positive(self, parameter: Tensor) -> Tensor:
        return F.softplus(parameter) if self.implicit_param_constraints else parameter


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))


def solve(
    inputs: Tensor,
    v: Tensor,
    d: Tensor | float,
    unfolds: int,
    epsilon: float,
    cm: Tensor,
    gleak: Tensor,
    vleak: Tensor,
    sensory: Sequence[Tensor],
    neural: Sequence[Tensor],
) -> Tensor:
    """Return the potentials after ``unfolds`` solver parts of length ``d``.

    ``sensory`` and ``neural`` are ``w``, ``mu``, ``sigma`` and ``erev`` ``[S, H]``, with zeros in ``w`` where
    there is no synapse.
    """
    g_inputs, current_inputs = _synapses(inputs, *sensory)
    for _ in range(unfolds):
        g, current = _synapses(v, *neural)
        numerator = cm * v + d * (gleak * vleak + current + current_inputs)
        denominator = cm + d * (gleak + g + g_inputs + epsilon)
        v = numerator / denominator
    return v


def _synapses(v: Tensor, w: Tensor, mu: Tensor, sigma: Tensor, erev: Tensor) -> tuple[Tensor, Tensor]:
    """Sum, for each neuron, the conductance of its synapses and the current they drive at zero potential.

    ``v`` holds the sources' potentials ``[B, S]``; the synapses' parameters are ``[S, H]``. Both sums are
    ``[B, H]``.
    """
    g = w * torch.sigmoid(sigma * (v.unsqueeze(-1) - mu))
    return g.sum(1), (g * erev).sum(1)


def affine(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """Scale and shift, where there is something to do so with."""
    if scale is not None:
        x = x * scale
    return x if shift is None else x + shift
