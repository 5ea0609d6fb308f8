"""How a run ended, as far as the exception that ended it tells."""

from __future__ import annotations

import os
from pathlib import Path
from traceback import walk_tb

from liquid_telemetry.spool import read_record, spool_dir


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


_PHASES = {
    ("loops", "__next__"): "data",
    ("strategies", "batch_to_device"): "transfer",
    ("strategies", "training_step"): "forward",
    ("strategies", "backward"): "backward",
    ("strategies", "optimizer_step"): "optimizer",
    ("strategies", "save_checkpoint"): "checkpoint",
}


def phase_of(error: BaseException) -> str | None:
    """The phase of training that an exception came from, by the functions of Lightning's that it passed."""
    phase = None
    for frame, _ in walk_tb(error.__traceback__):
        path = Path(frame.f_code.co_filename)
        if path.name == "evaluation_loop.py":
            return "validation"
        phase = _PHASES.get((path.parent.name, frame.f_code.co_name), phase or "other")
    return phase


def in_teardown(error: BaseException) -> bool:
    """Whether a Trainer function that had done its work raised in the end, in another callback's or the model's."""
    return any(frame.f_code.co_name == "_call_teardown_hook" for frame, _ in walk_tb(error.__traceback__))


def ran_in_children(error: BaseException) -> bool:
    """Whether the run was that of spawned processes, which the exporter watches.

    The process that spawned them had no ``setup``; all it gets is the exception that one of them died of, or Ctrl-C.
    """
    if type(error).__name__ not in ("ProcessRaisedException", "ProcessExitedException", "KeyboardInterrupt"):
        return False
    for path in spool_dir().glob("runs/*/*.json"):
        try:
            record = read_record(path)
        except (OSError, ValueError):
            continue
        if record.ppid == os.getpid() and not record.final:
            return True
    return False
