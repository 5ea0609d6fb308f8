"""Errors that are the user's to catch, and what any error says."""

from __future__ import annotations

_LONGEST = 16_000


class NonFiniteLossError(ArithmeticError):
    """A training loss was NaN or infinite, and ``stop_on_nonfinite=True`` asked that this end the run."""


def text_of(error: BaseException, longest: int = _LONGEST) -> str:
    """Return an error's message, cut to a length, or its type where it cannot tell."""
    try:
        return str(error)[:longest]
    except BaseException as failure:
        # One may raise itself, whatever kind of exception it is.
        if failure is not error and not isinstance(failure, Exception):
            raise
        return f"a {type(error).__name__} that cannot be put into words"
