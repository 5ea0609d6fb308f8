"""Checks of arguments that several modules share. Every message is one line: value, rule, fix."""

from collections.abc import Collection
from numbers import Integral

from torch import Tensor


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown: use one of {', '.join(map(repr, choices))}")


def check_at_least(name: str, value: object, least: int) -> int:
    """Return ``value`` if it is a whole number of at least ``least``; otherwise raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    return int(value)


def check_channels(input: Tensor, input_size: int) -> None:
    """Raise ValueError unless the last dimension of ``input`` is ``input_size``."""
    if input.shape[-1] != input_size:
        raise ValueError(
            f"input has {input.shape[-1]} channels but input_size={input_size}: "
            "the last dimension must equal input_size"
        )


def time_column(name: str, elapsed: Tensor | float, state: Tensor) -> Tensor | float:
    """Bring the time that a step spans to a form that broadcasts over ``state`` of shape ``[B, H]``.

    A number is one span for the whole batch; a tensor of shape ``[B]`` or ``[B, 1]`` gives each sample its
    own and comes back as ``[B, 1]`` in the state's dtype.
    """
    if not isinstance(elapsed, Tensor):
        return elapsed
    batch = state.shape[0]
    # Not by "in": under torch.compile it takes a size that may vary and one that may not for different.
    if elapsed.dim() > 0 and elapsed.shape != (batch,) and elapsed.shape != (batch, 1):
        raise ValueError(
            f"{name} has shape {tuple(elapsed.shape)}: "
            f"give a number, or one entry per sample with shape {(batch,)} or {(batch, 1)}"
        )
    elapsed = elapsed.to(state.dtype)
    return elapsed.unsqueeze(1) if elapsed.dim() == 1 else elapsed
