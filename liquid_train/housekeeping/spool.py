"""Seats in the spool that nobody will clear: their exporter has left."""

from __future__ import annotations

import time
from pathlib import Path

from liquid_telemetry.spool import FINAL, is_locked, read_record
from liquid_train.housekeeping.live import DAY


def leftovers(spool: Path, older_than: float = DAY) -> list[tuple[Path, str]]:
    """Return the seats of processes that are gone, untouched for so many seconds, and what each is.

    None while an exporter lives, which clears its spool itself. The end of a process that died while none lived is
    counted by the next one; that of a seat returned here never is, where it says so.
    """
    if is_locked(spool / "exporter.lock") or not (spool / "runs").is_dir():
        return []
    found = []
    for seat in sorted((spool / "runs").iterdir()):
        if seat.is_symlink() or not seat.is_dir() or any(is_locked(lock) for lock in seat.glob("*.lock")):
            continue
        seconds = time.time() - max(path.lstat().st_mtime for path in (seat, *seat.iterdir()))
        if seconds > older_than:
            found.append((seat, "its end is told" if _told(seat) else "its end has not been counted"))
    return found


def _told(seat: Path) -> bool:
    for path in seat.glob("*.json"):
        try:
            if read_record(path).status not in FINAL:
                return False
        except (OSError, ValueError, TypeError):
            return False
    return True
