"""The last step of a CfC cell, from its heads to the new state, over whole sequences at once.

Shapes: T steps, B batch, H hidden units, N heads.
"""

from typing import Protocol

import torch
from torch import Tensor


class Form(Protocol):
    """How heads become a state.

    Attributes:
        heads: Number of heads N.
    """

    heads: int

    def parts(self, u: Tensor) -> tuple[Tensor, ...]:
        """Return the views of heads ``[·, B, N·H]`` that ``step`` takes besides."""

    def step(self, t: Tensor | None, out: Tensor, u: Tensor, *parts: Tensor) -> None:
        """Write the new state ``[B, H]`` to ``out`` from the heads of a step, which may be overwritten."""

    def slopes(self, u: Tensor, spans: Tensor | None) -> Tensor:
        """Return the derivative of the state by each head, ``[T, B, N, H]``, from what ``step`` left in u."""

    def others(
        self, u: Tensor, spans: Tensor | None, grads: Tensor, d: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of spans (as they are shaped), ``A`` and ``w_tau`` ``[1, H]``, where there are any.

        ``grads`` ``[T, B, H]`` are the gradients of the states, ``d`` ``[T, B, N, H]`` those of the heads.
        """


class Gated:
    """The gated forms, with every tanh as a logistic function: ``tanh(x) = 2 σ(2x) - 1``.

    ``torch.tanh`` takes ten times as long as ``torch.sigmoid`` on a CPU. Heads are ``2 ff1``, ``2 ff2``, the
    gate and, with spans of the samples, what the span multiplies. The state is ``(h + 1) / 2``: scale and
    shift are in the weights that read it.

    Args:
        mixing: Whether the gate mixes the targets (mode ``default``) or is on the second (``no_gate``).
        spans: Whether each sample has its own span; otherwise the gate's two heads come as one.
    """

    def __init__(self, mixing: bool, spans: bool) -> None:
        self.mixing = mixing
        self.heads = 4 if spans else 3

    def parts(self, u: Tensor) -> tuple[Tensor, ...]:
        """See ``Form``: each head."""
        return tuple(u.split(u.shape[2] // self.heads, 2))

    def step(self, t: Tensor | None, out: Tensor, u: Tensor, *parts: Tensor) -> None:
        """See ``Form``."""
        p, q, s, *slope = parts
        if t is not None:
            s.addcmul_(slope[0], t)
            u = u[:, : 3 * s.shape[1]]
        u.sigmoid_()
        if self.mixing:
            torch.lerp(p, q, s, out=out)
        else:
            torch.addcmul(p, q, s, out=out).sub_(s, alpha=0.5)

    def slopes(self, u: Tensor, spans: Tensor | None) -> Tensor:
        """See ``Form``."""
        u = u.unflatten(2, (self.heads, -1))
        p, q, s = u.unbind(2)[:3]
        slopes = torch.empty_like(u)
        torch.addcmul(u[:, :, :3], u[:, :, :3], u[:, :, :3], value=-1, out=slopes[:, :, :3])
        if self.mixing:
            slopes[:, :, 0].addcmul_(slopes[:, :, 0], s, value=-1)
            slopes[:, :, 2] *= q - p
        else:
            slopes[:, :, 2] *= q - 0.5
        slopes[:, :, 1] *= s
        if spans is not None:
            torch.mul(slopes[:, :, 2], spans, out=slopes[:, :, 3])
        return slopes

    def others(
        self, u: Tensor, spans: Tensor | None, grads: Tensor, d: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """See ``Form``."""
        if spans is None:
            return None, None, None
        return _like(spans, u.unflatten(2, (4, -1))[:, :, 3] * d[:, :, 2]), None, None


class ClosedForm:
    """The closed-form solution of mode ``pure``: ``A - A ⊙ exp(-t · (|w_tau| + |f|)) ⊙ f``.

    Args:
        a: ``A``, ``[1, H]``.
        w_tau: ``[1, H]``.
        span: The span of every step where samples have none of their own.
    """

    heads = 1

    def __init__(self, a: Tensor, w_tau: Tensor, span: float) -> None:
        self.a = a
        self.w_tau = w_tau
        self.rate = w_tau.abs()
        self.span = span

    def parts(self, u: Tensor) -> tuple[Tensor, ...]:
        """See ``Form``."""
        return ()

    def step(self, t: Tensor | None, out: Tensor, u: Tensor, *parts: Tensor) -> None:
        """See ``Form``."""
        decay = self._decay(u, self.span if t is None else t)
        torch.addcmul(self.a, self.a, decay.mul_(u), value=-1, out=out)

    def slopes(self, u: Tensor, spans: Tensor | None) -> Tensor:
        """See ``Form``."""
        t = self.span if spans is None else spans
        return (self._decay(u, t) * (u.abs() * t - 1) * self.a).unsqueeze(2)

    def others(
        self, u: Tensor, spans: Tensor | None, grads: Tensor, d: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """See ``Form``."""
        t = self.span if spans is None else spans
        moved = self._decay(u, t) * u
        by_exponent = grads * self.a * moved
        d_a = (grads * (1 - moved)).sum((0, 1)).unsqueeze(0)
        d_w = (by_exponent * t).sum((0, 1)).unsqueeze(0) * self.w_tau.sign()
        d_spans = None if spans is None else _like(spans, by_exponent * (self.rate + u.abs()))
        return d_spans, d_a, d_w

    def _decay(self, u: Tensor, t: Tensor | float) -> Tensor:
        return (u.abs() + self.rate).mul_(-t).exp_()


def _like(spans: Tensor, d: Tensor) -> Tensor:
    """Return the gradient of spans, which all units of a sample may share, from those of each unit."""
    return d if spans.shape == d.shape else d.sum(2, keepdim=True)


def form_of(mode: str, span: float, spans: Tensor | None, a: Tensor | None, w_tau: Tensor | None) -> Form:
    """Return the form of a mode; ``CfCFunction`` has the arguments."""
    if mode == "pure":
        assert a is not None
        assert w_tau is not None
        return ClosedForm(a, w_tau, span)
    return Gated(mode == "default", spans is not None)
