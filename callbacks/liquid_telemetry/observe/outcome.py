"""How a run ended, as far as the exception that ended it tells."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from traceback import walk_tb
from typing import Any

from liquid_telemetry.errors import text_of
from liquid_telemetry.spool import RunRecord, read_record, spool_dir, write_atomically

TRACEBACK_CHARACTERS = 16_000


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
    if isinstance(error, SystemExit):
        return "failed", "exited"
    return "failed", _reason(names, text_of(error))


def _reason(names: Collection[str], message: str) -> str:
    if not _OUT_OF_MEMORY.isdisjoint(names):
        return "out_of_memory"
    if "NonFiniteLossError" in names or _ANOMALY in message:
        return "nonfinite"
    return "exception"


_OUT_OF_MEMORY = {"MemoryError", "OutOfMemoryError"}
_ANOMALY = "returned nan values in its"  # of Trainer(detect_anomaly=True)


_PHASES = {
    ("loops", "__next__"): "data",
    ("strategies", "batch_to_device"): "transfer",
    ("strategies", "training_step"): "forward",
    ("strategies", "backward"): "backward",
    ("optimization", "_optimizer_step"): "optimizer",
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
    It notes that in the records of those that could not, for the exporter to tell.
    """
    if type(error).__name__ not in ("ProcessRaisedException", "ProcessExitedException", "KeyboardInterrupt"):
        return False
    found = False
    for path in spool_dir().glob("runs/*/*.json"):
        try:
            record = read_record(path)
            if record.ppid == os.getpid() and not record.final:
                found = True
                write_atomically(path, replace(record, **_word_on(record, error)).to_json())
        except (OSError, ValueError):
            continue
    return found


def _word_on(record: RunRecord, error: BaseException) -> dict[str, Any]:
    """What the parent knows of the end of one spawned process."""
    if isinstance(error, KeyboardInterrupt):
        return {"reason": "user", "error_type": "KeyboardInterrupt", "ended": time.time()}
    if type(error).__name__ != "ProcessRaisedException" or getattr(error, "error_pid", None) != record.pid:
        return {}
    text = str(error).strip()
    kind, _, message = text.splitlines()[-1].partition(": ")
    return {
        "reason": _reason([kind.rpartition(".")[2]], text),
        "error_type": kind.rpartition(".")[2],
        "error_message": message[:1000],
        "traceback": text[-TRACEBACK_CHARACTERS:],
        "ended": time.time(),
    }
