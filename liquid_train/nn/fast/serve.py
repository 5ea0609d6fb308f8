"""Run a cell over sequences on the fast path.

Shapes: T steps, B batch, C input channels, H hidden units, O outputs.
"""

from contextlib import nullcontext
from dataclasses import astuple
from typing import cast

import torch
from torch import Tensor

from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.fast import cfc_steps
from liquid_train.nn.fast.calls import CfCPlan, LTCPlan, Tensors, cfc_call, ltc_call
from liquid_train.nn.fast.cfc import run_cfc
from liquid_train.nn.fast.compiled import operators
from liquid_train.nn.fast.heap import keep_freed
from liquid_train.nn.fast.ltc import run_ltc
from liquid_train.nn.fast.native_cfc import run_native_cfc
from liquid_train.nn.fast.native_ltc import run_native_ltc
from liquid_train.nn.fast.why_not import Cell
from liquid_train.nn.fast.wired import run_wired
from liquid_train.nn.gpu.choice import cfc_loops
from liquid_train.nn.ltc_cell import LTCCell, affine
from liquid_train.nn.native.library import Library, native
from liquid_train.nn.sequences import Sequences


def run_fast(cell: Cell, sequences: Sequences, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs ``[B, T, O]`` and the state at each sequence's end ``[B, H]``, as ``unroll`` does.

    Call it where ``why_not`` returns None. Under autocast it computes in the parameters' precision and
    returns outputs of the dtype that the plain path has.
    """
    if not torch.compiler.is_compiling():
        keep_freed()
    x = sequences.inputs
    if sequences.time_dim == 1:
        x = x.transpose(0, 1)
    spans, dtype = _time_major(sequences), _output_dtype(cell, sequences, h)
    mixed = torch.is_autocast_enabled(h.device.type)
    with torch.autocast(h.device.type, enabled=False) if mixed else nullcontext():
        outputs, states = _run(cell, x.to(h.dtype), h, spans)
        outputs = outputs.to(dtype)
        # A copy, even of one: a view would keep the states of all steps alive, and share changes in place.
        ends = torch.cat([_at_end(part, start, sequences.lengths) for part, start in states], 1)
    if sequences.time_dim == 1:
        outputs = outputs.transpose(0, 1)
    return outputs.contiguous(), ends


def _run(
    cell: Cell, x: Tensor, h: Tensor, spans: Tensor | float
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return outputs, and for each layer its states ``[T, B, ·]`` and the one before the first step."""
    if isinstance(cell, CfCCell):
        x = _cfc_states(*cfc_call(cell, x, h, spans))
        return x, [(x, h)]
    if isinstance(cell, LTCCell):
        states = _ltc_states(*ltc_call(cell, x, h, spans))
        outputs = affine(states[..., : cell.motor_size], cell.output_w, cell.output_b)
        # The output may be changed in place, the states that are kept must not.
        return outputs.clone() if cell.output_w is None else outputs, [(states, h)]
    cells = cast(list[CfCCell], list(cell.children()))
    starts = torch.split(h, cell.layer_sizes, dim=1)
    if len(cells) > 1 and _as_one(cells[0], x, h, spans):
        found = run_wired(cells, x, h, spans)
        if _finite(found[-1][-1]):
            return found[-1][..., : cell.output_size], list(zip(found, starts, strict=True))
    layers = []
    # A layer reads the layer before it at the same step only: each can run over the whole sequence in turn.
    for layer, start in zip(cells, starts, strict=True):
        x = _cfc_states(*cfc_call(layer, x, start, spans))
        layers.append((x, start))
    return x[..., : cell.output_size], layers


def _as_one(layer: CfCCell, x: Tensor, h: Tensor, spans: Tensor | float) -> bool:
    """Return whether steps of all layers at once are quicker: where no kernels run."""
    if torch.compiler.is_compiling() or _kernels(h) is not None:
        return False
    return cfc_loops(CfCPlan(layer.mode, 0, "ReLU", 1.0), h, isinstance(spans, Tensor)) is cfc_steps


def _finite(end: Tensor) -> bool:
    """Return whether the last layer's last state is: a NaN stays in it, but reaches steps before its own as well.

    Layers that run as one are multiplied with zeros where they do not read each other. An accelerator is not
    asked: it would have to be waited for.
    """
    return end.device.type != "cpu" or bool(end.isfinite().all())


def _cfc_states(plan: CfCPlan, tensors: Tensors) -> Tensor:
    library = _kernels(tensors[1])
    if library is None:
        return run_cfc(plan, *tensors)
    if torch.compiler.is_compiling():
        return operators.call("cfc", astuple(plan), tensors)
    return run_native_cfc(library, plan, *tensors)


def _ltc_states(plan: LTCPlan, tensors: Tensors) -> Tensor:
    library = _kernels(tensors[1])
    if library is None:
        return run_ltc(plan, *tensors)
    if torch.compiler.is_compiling():
        return operators.call("ltc", astuple(plan), tensors)
    return run_native_ltc(library, plan, *tensors)


def _kernels(h: Tensor) -> Library | None:
    """Return the kernels if they run such tensors: single precision on a CPU."""
    return native() if h.dtype == torch.float32 and h.device.type == "cpu" else None


def _time_major(sequences: Sequences) -> Tensor | float:
    spans = sequences.timespans
    if not isinstance(spans, Tensor):
        return spans
    if spans.dim() == 0:
        return spans.expand(*sequences.inputs.shape[:2], 1).transpose(0, sequences.time_dim)
    return spans.transpose(0, sequences.time_dim).contiguous()


def _at_end(states: Tensor, start: Tensor, lengths: Tensor | None) -> Tensor:
    """Take each sequence's state at its own end; what follows it does not count."""
    if lengths is None:
        return states[-1]
    ends = states[(lengths - 1).clamp(min=0), torch.arange(len(lengths), device=lengths.device)]
    return torch.where(lengths.unsqueeze(1) > 0, ends, start)


def _output_dtype(cell: Cell, sequences: Sequences, h: Tensor) -> torch.dtype:
    """Return what the plain path's promotion gives: a span of each sample or ``A`` keeps full precision."""
    kind = h.device.type
    spans = sequences.timespans
    full = isinstance(spans, Tensor) and spans.dim() > 0
    if not torch.is_autocast_enabled(kind) or full or isinstance(cell, LTCCell):
        return h.dtype
    first = cell if isinstance(cell, CfCCell) else next(cell.children())
    if first.mode == "pure":
        return h.dtype
    return torch.get_autocast_dtype(kind)
