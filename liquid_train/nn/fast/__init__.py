"""Whole sequences at once, with the numbers of the plain loop in ``unroll``."""

from liquid_train.nn.fast.serve import run_fast
from liquid_train.nn.fast.why_not import why_not

__all__ = ["run_fast", "why_not"]
