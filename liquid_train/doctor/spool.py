"""The spool: may it be used, does it lock, and what dead runs have left in it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from liquid_telemetry.spool import (
    FINAL,
    SPOOL_VARIABLE,
    FileLock,
    SpoolError,
    is_locked,
    read_record,
    spool_dir,
)
from liquid_train.doctor.finding import Area, Finding

_AREA = Area("spool")
_PATIENCE = 10.0
_LOCKED = 3
_TRY_LOCK = (
    "import fcntl, sys\n"
    "try: fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    f"except OSError: sys.exit({_LOCKED})"
)


def find_spool() -> tuple[Path | None, Finding]:
    """Return the spool, None when it cannot be used, and what was found of it."""
    try:
        spool = spool_dir()
        with tempfile.NamedTemporaryFile(dir=spool, prefix=".doctor-"):
            pass
    except SpoolError as error:
        seen, _, todo = str(error).rpartition("; ")
        return None, _AREA.problem("directory", seen, todo)
    except OSError as error:
        return None, _AREA.problem(
            "directory",
            f"nothing can be written to it ({error.strerror})",
            f"set {SPOOL_VARIABLE} to a directory that only you can write to, on a disk with room",
        )
    return spool, _AREA.ok("directory", f"{spool}, mode {spool.stat().st_mode & 0o777:o}, can be written to")


def check_locks(spool: Path) -> Finding:
    """Return whether a lock on a file there is seen by another process."""
    if sys.platform == "win32":
        return _AREA.warning(
            "locks",
            "this platform has no POSIX locks: no exporter, and the end of a killed process is not seen",
            "pass registry= to show the metrics in a server of your own",
        )
    path = spool / f".doctor-{os.getpid()}.lock"
    move = f"set {SPOOL_VARIABLE} to a directory on a local disk"
    try:
        lock = FileLock.take(path)
        if lock is None:
            return _AREA.problem("locks", f"{path} is locked, but nobody has a reason to", move)
        try:
            command = [sys.executable, "-I", "-S", "-c", _TRY_LOCK, os.fspath(path)]
            seen = subprocess.run(command, capture_output=True, timeout=_PATIENCE).returncode  # noqa: S603
        finally:
            lock.release()
            path.unlink(missing_ok=True)
    except (OSError, subprocess.SubprocessError) as error:
        return _AREA.problem("locks", f"a file in it cannot be locked ({error})", move)
    if seen != _LOCKED:
        return _AREA.problem("locks", "a lock on a file in it is not seen by another process", move)
    return _AREA.ok("locks", "a lock is seen by another process")


def check_leftovers(spool: Path, *, exporter: bool) -> Iterator[Finding]:
    """Yield how many runs live, and what dead ones have left.

    Args:
        spool: Where the runs are.
        exporter: Whether an exporter lives, which looks after the dead.
    """
    live, dead, damaged = 0, [], sorted(spool.glob("runs/[!.]*/*.damaged"))
    for path in sorted(spool.glob("runs/[!.]*/[0-9]*.json")):
        try:
            if is_locked(path.with_suffix(".lock")):
                live += 1
            elif read_record(path).status not in FINAL:
                dead.append(f"{path.parent.name} rank {path.stem}")
        except (OSError, ValueError, TypeError):
            damaged.append(path)
    if damaged:
        yield _AREA.warning("records", f"{len(damaged)} damaged: {damaged[0]}", "delete them: rm FILE")
    processes = f"{live} process{'' if live == 1 else 'es'} of live runs"
    if not dead:
        yield _AREA.ok("runs", processes)
    elif exporter:
        yield _AREA.ok("runs", f"{processes}; the exporter looks after {len(dead)} dead: {_some(dead)}")
    else:
        yield _AREA.warning(
            "runs",
            f"{processes}; {len(dead)} died and are not counted yet: {_some(dead)}",
            f"the next run's exporter counts and closes them; at once: {sys.executable} "
            f"-m liquid_telemetry.exporter --spool {spool}",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
