"""Errors that are the user's to catch."""

from __future__ import annotations


class NonFiniteLossError(ArithmeticError):
    """A training loss was NaN or infinite, and ``stop_on_nonfinite=True`` asked that this end the run."""
