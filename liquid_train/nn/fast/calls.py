"""What a cell does with a sequence, as constants and tensors: all that the runners of the fast path take.

Parameters are taken from the modules' dictionaries: as attributes each would take several times as long.

Shapes: T steps, B batch, C input channels, H hidden units, S sources of synapses (C or H).
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from liquid_train.nn.activations import common_activation
from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.ltc_cell import LTCCell, affine
from liquid_train.nn.shapes import cfc_linears

Tensors = tuple[Any, ...]
"""Tensors or None, as the plan says."""


@dataclass(frozen=True)
class CfCPlan:
    """The constants of a CfC cell's call.

    Its tensors are input ``[T, B, C]``, initial state ``[B, H]``, spans ``[T, B, 1]`` or None, the mask of ff1
    and ff2 or None, that of time_a and time_b or None, ``A`` and ``w_tau`` ``[1, H]`` of mode ``pure`` or
    None, then weight and bias of each backbone layer and of each head.

    Attributes:
        mode: The cell's.
        layers: Backbone layers.
        activation: Class name of the backbone's activation.
        span: The span of every step where samples have none of their own.
    """

    mode: str
    layers: int
    activation: str
    span: float


@dataclass(frozen=True)
class LTCPlan:
    """The constants of an LTC cell's call.

    Its tensors are input ``[T, B, C]``, potentials before the first step ``[B, H]``, length of a solver part
    ``[T, B, 1]`` or None, ``cm``, ``gleak`` and ``vleak`` ``[H]``, ``w``, ``mu``, ``sigma`` and ``erev``
    ``[S, H]`` of the inputs' synapses, then of the neurons', and masks of the two.

    Attributes:
        unfolds: Solver parts of a step.
        epsilon: The cell's.
        span: The length of a part where samples have none of their own.
    """

    unfolds: int
    epsilon: float
    span: float


def cfc_call(cell: CfCCell, x: Tensor, h: Tensor, spans: Tensor | float) -> tuple[CfCPlan, Tensors]:
    """Return constants and tensors for input ``x``, state ``h`` and spans, ``[T, B, 1]`` or one number."""
    times, span = (spans, 1.0) if isinstance(spans, Tensor) else (None, spans)
    backbone, heads = cfc_linears(cell)
    activation = "ReLU" if cell.backbone is None else common_activation(cell.backbone)
    assert activation is not None
    plan = CfCPlan(cell.mode, len(backbone), activation, span)
    own = cell._parameters
    closed = (own["A"], own["w_tau"]) if cell.mode == "pure" else (None, None)
    mask = cell._buffers["sparsity_mask"]
    given = [linear._parameters for linear in (*backbone, *heads)]
    maps = [part for parameters in given for part in (parameters["weight"], parameters["bias"])]
    return plan, (x, h, times, mask, mask if cell.strict_wiring else None, *closed, *maps)


def ltc_call(cell: LTCCell, x: Tensor, v: Tensor, spans: Tensor | float) -> tuple[LTCPlan, Tensors]:
    """Return constants and tensors for input ``x``, potentials ``v`` and spans, ``[T, B, 1]`` or one number."""
    part = spans / cell.ode_unfolds
    parts, span = (part, 1.0) if isinstance(part, Tensor) else (None, part)
    own: dict[str, Any] = cell._parameters
    synapses = [own[kind + name] for kind in ("sensory_", "") for name in ("w", "mu", "sigma", "erev")]
    if cell.implicit_param_constraints:
        synapses[0], synapses[4] = cell._positive(synapses[0]), cell._positive(synapses[4])
    return LTCPlan(cell.ode_unfolds, cell.epsilon, span), (
        *(affine(x, cell.input_w, cell.input_b), v, parts),
        *(cell._positive(own["cm"]), cell._positive(own["gleak"]), own["vleak"]),
        *synapses,
        *(cell._buffers["sensory_sparsity_mask"], cell._buffers["sparsity_mask"]),
    )
