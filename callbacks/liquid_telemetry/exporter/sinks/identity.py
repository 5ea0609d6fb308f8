"""Who sends: a name of its own for each exporter, the same after a restart."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from pathlib import Path

_MACHINE = Path("/etc/machine-id")


def identity(spool: Path) -> str:
    """Return ``<host>:<8 hexadecimal digits>``: one per host and spool.

    Exporters that share a name overwrite one another, and the alerts of all but the last are lost. Hosts may share a
    name too (``localhost``), hence the machine's id in the digits.
    """
    host = socket.gethostname() or "localhost"
    machine = ""
    with contextlib.suppress(OSError):
        machine = _MACHINE.read_text().strip()
    digits = hashlib.sha256("\0".join((host, machine, str(spool.resolve()))).encode()).hexdigest()
    return f"{host}:{digits[:8]}"
