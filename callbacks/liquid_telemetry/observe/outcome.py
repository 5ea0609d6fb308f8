"""How a run ended, as far as the exception that ended it tells."""

from __future__ import annotations


def outcome_of(error: BaseException) -> tuple[str, str]:
    """Outcome and reason, as in the catalogue.

    Types are told by name where they belong to a package that may not be imported: Lightning's
    ``SIGTERMException`` exists once in each of its two packages, CUDA's out-of-memory error in torch.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "user"
    if "SIGTERMException" in names:
        return "interrupted", "terminated"
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return "failed", "out_of_memory"
    if isinstance(error, SystemExit):
        return "failed", "exited"
    return "failed", "exception"
