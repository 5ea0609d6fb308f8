"""What tells a process from every other one, although process ids are used again and again."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_STARTED = 19  # fields of /proc/<pid>/stat after the name in brackets


def identity(pid: int | None = None) -> str | None:
    """Return boot, PID namespace and start of a process; None where the platform does not tell, or it is gone.

    Args:
        pid: This process when None.
    """
    process = Path("/proc") / ("self" if pid is None else str(pid))
    try:
        namespace = process.joinpath("ns", "pid").readlink()
        started = process.joinpath("stat").read_bytes().rpartition(b")")[2].split()[_STARTED]
        return f"{_boot()} {namespace} {int(started)}"
    except (OSError, IndexError, ValueError):
        return None


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
