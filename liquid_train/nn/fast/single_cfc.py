"""A CfC cell over one sequence, without autograd and in NumPy, whose calls cost a fraction of PyTorch's.

Shapes: T steps, C input channels, H hidden units, K width of a backbone layer, N heads. A map of n numbers to m
is ``[n + 1, m]``, its last row the bias.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from liquid_train.nn.fast.calls import CfCPlan

Array = npt.NDArray[Any]
Close = Callable[[Any, Array], None]
"""``close(span, out)`` turns the heads of a step into the new state; the span is that of the sample, or None."""


def _relu(x: Array, out: Array) -> Array:
    positive: Array = np.maximum(x, 0.0, out)
    return positive


_ACTIVATIONS: dict[str, tuple[Callable[[Array, Array], Array], float, float]] = {
    "LeCunTanh": (np.tanh, 0.666, 1.7159),
    "Tanh": (np.tanh, 1.0, 1.0),
    "ReLU": (_relu, 1.0, 1.0),
}
"""By name: ``f``, ``scale`` and ``gain`` of ``gain · f(scale · x)``."""


_MOST = 1 << 17
"""Numbers in weights; to prepare more takes longer than a few quicker steps bring back."""


def serves_single(plan: CfCPlan, *tensors: Tensor | None) -> bool:
    """Return whether a call of ``run_cfc`` is one sequence through a small cell, without gradients, on a CPU."""
    x, given = tensors[0], [part for part in tensors if part is not None]
    if x is None or x.shape[1] != 1 or x.device.type != "cpu" or plan.activation not in _ACTIVATIONS:
        return False
    if torch.is_grad_enabled() and any(part.requires_grad for part in given):
        return False
    return sum(part.numel() for part in tensors[7:] if part is not None) <= _MOST


def run_single_cfc(plan: CfCPlan, *tensors: Any, held: Sequence[int] = ()) -> Tensor:
    """Return the states after each step ``[T, 1, H]``; the arguments are those of ``run_cfc``."""
    arrays: list[Any] = [None if part is None else part.detach().numpy() for part in tensors]
    x, h, spans, mask, time_mask, a, w_tau, *flat = arrays
    T, C, H = len(x), x.shape[2], h.shape[1]
    first, *others = _maps(plan, spans is not None, mask, time_mask, flat)
    recurrent = first[C:-1]
    # What each map gives, and what the next one takes: the last number stays one.
    y, *results = (np.empty(map.shape[1], h.dtype) for map in (first, *others))
    taken = [np.ones(len(map), h.dtype) for map in others]
    layers = list(zip([y, *results], [z[:-1] for z in taken], taken, others, results, strict=False))
    heads = results[-1] if results else y
    close = _pure(heads, a[0], np.abs(w_tau[0]), plan.span) if a is not None else _gated(plan, heads, H)
    bend = _ACTIVATIONS[plan.activation][0]
    state, states = h[0], np.empty((T, H), h.dtype)
    times = [None] * T if spans is None else spans[:, 0]
    with np.errstate(all="ignore"):
        inputs = x[:, 0] @ first[:C] + first[-1]
        for t, (given, time, out) in enumerate(zip(inputs, times, states, strict=True)):
            state.dot(recurrent, y)
            np.add(y, given, y)
            for argument, value, z, map, result in layers:
                bend(argument, value)
                z.dot(map, result)
            close(time, out)
            if t < len(held):
                out[held[t] :] = state[held[t] :]
            state = out
    return torch.from_numpy(states).unsqueeze(1)


def _maps(
    plan: CfCPlan, spans: bool, mask: Array | None, time_mask: Array | None, flat: Sequence[Array]
) -> list[Array]:
    """Return the maps, with the activation's factors in those before and after it; the last gives the heads.

    These are ff1, ff2, the gate and, with spans, what the span multiplies; or ff1. The gate is
    ``σ(x) = (1 + tanh(x / 2)) / 2``: its weights are halved for it.
    """
    _, scale, gain = _ACTIVATIONS[plan.activation]
    masks = [*[None] * plan.layers, mask, mask, time_mask, time_mask]
    maps = []
    for index, (weight, bias, kept) in enumerate(zip(flat[::2], flat[1::2], masks, strict=False)):
        before = scale if index < plan.layers else 1.0
        after = gain if index > 0 and plan.layers else 1.0
        maps.append(np.empty((weight.shape[1] + 1, len(weight)), weight.dtype))
        np.multiply(weight.T, before * after, maps[-1][:-1])
        np.multiply(bias, before, maps[-1][-1])
        if kept is not None:
            maps[-1][:-1] *= kept.T
    if plan.mode == "pure":
        return maps
    *backbone, f1, f2, a, b = maps
    gate = [0.5 * b, 0.5 * a] if spans else [0.5 * (b + plan.span * a)]
    return [*backbone, np.concatenate([f1, f2, *gate], 1)]


def _gated(plan: CfCPlan, u: Array, H: int) -> Close:
    mixing = plan.mode == "default"
    bent, p, q, s, slope = u[: 3 * H], u[:H], u[H : 2 * H], u[2 * H : 3 * H], u[3 * H :]

    def close(time: Any, out: Array) -> None:
        if time is not None:
            np.add(s, slope * time, s)
        np.tanh(bent, bent)
        if mixing:
            np.subtract(q, p, out)
            np.multiply(out, s, out)
            np.add(out, p, out)
            np.add(out, q, out)
            np.multiply(out, 0.5, out)
        else:
            np.multiply(q, s, out)
            np.add(out, q, out)
            np.multiply(out, 0.5, out)
            np.add(out, p, out)

    return close


def _pure(f: Array, a: Array, rate: Array, span: float) -> Close:
    def close(time: Any, out: Array) -> None:
        np.absolute(f, out)
        np.add(out, rate, out)
        np.multiply(out, -span if time is None else -time, out)
        np.exp(out, out)
        np.multiply(out, f, out)
        np.multiply(out, a, out)
        np.subtract(a, out, out)

    return close
