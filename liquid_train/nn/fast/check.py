"""Whether kernels, which were compiled on a machine that nobody has tested them on, give the right numbers.

They are compared with tensor operations on some small numbers: states and every gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from liquid_train.nn.fast.calls import CfCPlan

Run = Callable[..., Tensor]

TOLERANCE = 1e-4

_CPU = torch.device("cpu")


@contextmanager
def undisturbed(device: torch.device = _CPU) -> Iterator[None]:
    """Leave the modes of whoever makes the first call."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


def numbers(*shape: int, device: torch.device = _CPU) -> Tensor:
    """Return numbers between -0.5 and 0.5, without drawing from a random stream."""
    count = torch.Size(shape).numel()
    return 0.5 * torch.arange(1, count + 1, dtype=torch.float32, device=device).sin().view(shape)


def cfc_tensors(plan: CfCPlan, spans: bool, device: torch.device = _CPU) -> list[Tensor | None]:
    """Return tensors of a ``CfCPlan``, masks excepted."""
    T, B, C, H, K = 3, 5, 2, 20, 24
    pure, some = plan.mode == "pure", partial(numbers, device=device)
    inputs = [C + H, *[K] * plan.layers]
    sizes = [*((K, width) for width in inputs[:-1]), *[(H, inputs[-1])] * (1 if pure else 4)]
    maps = [part for size in sizes for part in (some(*size), some(size[0]))]
    closed = (some(1, H), some(1, H)) if pure else (None, None)
    return [some(T, B, C), some(B, H), some(T, B, 1).abs() if spans else None, None, None, *closed, *maps]


def agree(kernels: Run, plain: Run, tensors: Sequence[Tensor | None], tolerance: float = TOLERANCE) -> bool:
    """Return whether two functions of tensors have the same values and gradients.

    The second runs in double precision: its products are exact whatever precision PyTorch may use for others.
    """
    found = _results(kernels, tensors)
    expected = _results(plain, [None if part is None else part.double() for part in tensors])
    return all(
        torch.allclose(one, other.to(one.dtype), rtol=tolerance, atol=tolerance)
        for one, other in zip(found, expected, strict=True)
    )


def _results(run: Run, tensors: Sequence[Tensor | None]) -> list[Tensor]:
    leaves = [None if part is None else part.clone().requires_grad_() for part in tensors]
    states = run(*leaves)
    given = [leaf for leaf in leaves if leaf is not None]
    total = (states * numbers(*states.shape, device=states.device)).sum()
    return [states, *torch.autograd.grad(total, given)]
