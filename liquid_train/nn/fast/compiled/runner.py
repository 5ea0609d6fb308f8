"""What runs sequences where a compiler must not look inside.

Shapes: T steps, B batch, H hidden units.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

Given = Sequence[Tensor | None]


class Runner(Protocol):
    """What runs sequences.

    Attributes:
        name: Of the operator.
        constants: The schema of what it takes beside tensors. A number follows, the span of every step.
        reads_states: Whether its backward pass reads the states.
    """

    name: str
    constants: str
    reads_states: bool

    def empty(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """Return room for the states ``[T, B, H]``, and for what is kept for a backward pass."""

    def forward(self, constants: Sequence[Any], given: Given, keep: bool) -> list[Tensor]:
        """Return the states, and what is kept."""

    def backward(
        self,
        constants: Sequence[Any],
        given: Given,
        made: Sequence[Tensor],
        grads: Tensor,
        needed: list[bool],
    ) -> Sequence[Tensor | None]:
        """Return the gradients of the tensors, at least of the needed ones.

        ``made`` is what was kept, after the states if they are read.
        """


def after_each_step(given: Given) -> Tensor:
    """Return room for the states, ``[T, B, H]``, from a first tensor ``[T, B, ·]`` and a state ``[B, H]``."""
    x, h = given[:2]
    assert x is not None
    assert h is not None
    return h.new_empty(x.shape[0], *h.shape)
