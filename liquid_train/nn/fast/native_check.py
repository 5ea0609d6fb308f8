"""Whether the kernels, which the user's own compiler has built, give the right numbers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from liquid_train.nn.cfc import CfC
from liquid_train.nn.fast.calls import CfCPlan, LTCPlan
from liquid_train.nn.fast.check import TOLERANCE, agree, cfc_tensors, numbers, undisturbed
from liquid_train.nn.fast.native_cfc import run_native_cfc
from liquid_train.nn.fast.native_ltc import run_native_ltc
from liquid_train.nn.fast.replay import plain_cfc, plain_ltc
from liquid_train.nn.layer import LiquidLayer
from liquid_train.nn.ltc import LTC
from liquid_train.nn.native.cells import cfc_step, ltc_step
from liquid_train.nn.native.library import Library
from liquid_train.nn.native.step import Step
from liquid_train.nn.streaming.native_stream import NativeStream


def are_right(library: Library) -> bool:
    """Return whether CfCs of each mode and an LTC have the plain loop's states and gradients, steps and streams."""
    with undisturbed():
        return (
            _cfc(library, CfCPlan("default", 1, "LeCunTanh", 1.0), spans=True)
            and _cfc(library, CfCPlan("no_gate", 2, "GELU", 0.7), spans=False)
            and _cfc(library, CfCPlan("pure", 0, "ReLU", 0.7), spans=False)
            and _ltc(library)
            and _steps(library, _made(CfC, 3, 20), cfc_step)
            and _steps(library, _made(CfC, 3, 20, mode="pure", backbone_layers=0), cfc_step)
            and _steps(library, _made(LTC, 3, 20), ltc_step)
        )


def _cfc(library: Library, plan: CfCPlan, spans: bool) -> bool:
    tensors = cfc_tensors(plan, spans)
    return agree(partial(run_native_cfc, library, plan), partial(plain_cfc, plan), tensors)


def _ltc(library: Library) -> bool:
    T, B, C, H = 2, 5, 3, 20
    plan = LTCPlan(unfolds=2, span=0.5, epsilon=1e-8)
    masks = numbers(C, H).sign().abs(), (numbers(H, H) > 0).float()
    cell = numbers(H).abs() + 0.5, numbers(H).abs() + 0.5, numbers(H)
    synapses = [
        part for S in (C, H) for part in (numbers(S, H).abs(), numbers(S, H), numbers(S, H), numbers(S, H))
    ]
    tensors = numbers(T, B, C), numbers(B, H), None, *cell, *synapses

    def kernels(*given: Tensor | None) -> Tensor:
        return run_native_ltc(library, plan, *given, *masks)

    def plain(x: Tensor, v: Tensor, spans: Tensor | None, *given: Tensor) -> Tensor:
        return plain_ltc(plan, x, v, spans, *given, *masks)

    return agree(kernels, plain, tensors)


def _made(kind: Callable[..., LiquidLayer], *sizes: int, **options: Any) -> LiquidLayer:
    """Return a layer with fixed numbers; the random stream stays as it is."""
    with torch.device("cpu"), torch.random.fork_rng(devices=()):
        layer = kind(*sizes, **options).float()
    for parameter in layer.parameters():
        parameter.data.copy_(numbers(*parameter.shape).abs())
    return layer


@torch.no_grad()
def _steps(library: Library, layer: LiquidLayer, make: Callable[[Any, Library], Step]) -> bool:
    """Compare single steps and a stream with the plain loop."""
    x, spans = numbers(2, 4, 3), numbers(2, 4, 1).abs()
    cell, stream = layer.rnn_cell, NativeStream(layer, 2, False, library)
    step, state, found = make(cell, library), 0 * numbers(2, cell.state_size), []
    for input, span in zip(x.unbind(1), spans.unbind(1), strict=True):
        made = step.run(cell, input.contiguous(), state, span.contiguous())
        if made is None:
            return False
        output, state = made
        found.append(torch.stack([output, stream.step(input, span)]))
    layer.fast = False
    expected = layer.double()(x.double(), timespans=spans.double())[0]
    return torch.allclose(torch.stack(found, 2), expected.float(), TOLERANCE, TOLERANCE)
