"""Whether the kernels, which the user's own compiler has built, give the right numbers."""

from functools import partial

from torch import Tensor

from liquid_train.nn.fast.calls import CfCPlan, LTCPlan
from liquid_train.nn.fast.check import agree, cfc_tensors, numbers, undisturbed
from liquid_train.nn.fast.native_cfc import run_native_cfc
from liquid_train.nn.fast.native_ltc import run_native_ltc
from liquid_train.nn.fast.replay import plain_cfc, plain_ltc
from liquid_train.nn.native.library import Library


def are_right(library: Library) -> bool:
    """Return whether CfCs of each mode and an LTC have the plain loop's states and gradients."""
    with undisturbed():
        return (
            _cfc(library, CfCPlan("default", 1, "LeCunTanh", 1.0), spans=True)
            and _cfc(library, CfCPlan("no_gate", 2, "GELU", 0.7), spans=False)
            and _cfc(library, CfCPlan("pure", 0, "ReLU", 0.7), spans=False)
            and _ltc(library)
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
