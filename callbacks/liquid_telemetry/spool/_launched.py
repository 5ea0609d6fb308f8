"""What a launcher and the processes under it tell one another through the spool."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from liquid_telemetry.spool._identity import identity
from liquid_telemetry.spool._record import read_record, write_atomically

LAUNCHER_VARIABLE = "LIQUID_TELEMETRY_LAUNCHER"
"""Names, in the environment of everything under a launcher, the run id of the launcher's own seat."""

_MARK = "started"


def launched_by() -> str | None:
    """Return the run id of the launcher that this process is under."""
    name = os.environ.get(LAUNCHER_VARIABLE, "")
    return name if name and name == Path(name).name and not name.startswith(".") else None


def mark_started(spool: Path, launcher: str) -> None:
    """Tell a launcher that a run has begun under it; the run may have gone from the spool before that ends."""
    with suppress(OSError):  # the launcher has left, or has another spool
        (spool / "runs" / launcher / _MARK).touch()


def has_started(spool: Path, launcher: str) -> bool:
    """Whether a run has begun under a launcher."""
    return (spool / "runs" / launcher / _MARK).exists()


def write_exit(spool: Path, pid: int, status: int) -> None:
    """Tell the exporter how a process has ended, if that has a seat: only its parent knows for certain.

    The file is ``runs/<run_id>/<rank>.exit`` with the wait status as decimal text. A process that has not been
    collected yet is told from an earlier one with its pid; so this comes before that.
    """
    known_as = identity(pid)
    for path in spool.glob("runs/[!.]*/*.json"):
        with suppress(OSError, ValueError, TypeError):
            record = read_record(path)
            if record.pid == pid and record.identity == known_as:
                write_atomically(path.with_suffix(".exit"), b"%d\n" % status)


def read_exit(path: Path) -> int | None:
    """Return the wait status in an ``.exit`` file, None where there is none."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None
