"""Starting the exporter process from a training process, and finding it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

from liquid_telemetry.spool import _lock
from liquid_telemetry.spool._lock import is_locked
from liquid_telemetry.spool._sinks import SINK_VARIABLES

_log = logging.getLogger("liquid_telemetry")

# The process forks at once, so that it is no child (and never a zombie) of the trainer. It may inherit blocked signals.
_BOOTSTRAP = (
    "import os, signal, sys\n"
    "if os.fork(): os._exit(0)\n"
    "signal.pthread_sigmask(signal.SIG_SETMASK, [])\n"
    "sys.path += sys.argv.pop(1).split(os.pathsep)\n"
    "import runpy; runpy.run_module('liquid_telemetry.exporter', run_name='__main__')"
)
_IMPORTS = ("liquid_telemetry", "prometheus_client", "psutil")
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "XDG_RUNTIME_DIR")
_MAX_ERRORS = 100_000  # bytes of tracebacks that are kept


@dataclass(frozen=True)
class ExporterAddress:
    """Where the live exporter serves.

    Args:
        url: Base, without a trailing slash.
        host: Bound address.
        port: Bound port.
        pid: Of the exporter.
        notice: One line when it could not have the address it was started with, else None.
        asked_host: Address it was started with.
        asked_port: Port it was started with.
    """

    url: str
    host: str
    port: int
    pid: int
    notice: str | None = None
    asked_host: str = ""
    asked_port: int = 0

    def remark(self, host: str, port: int) -> str | None:
        """Return what to tell a run that asked for this host and port, or None when it got them."""
        if (host, port) == (self.asked_host, self.asked_port):
            return self.notice
        if host in self._reached_at and port in (0, self.port):
            return None
        return f"the exporter already serves at {self.url}; host={host!r}, port={port} wait until it has left"

    @property
    def _reached_at(self) -> tuple[str, ...]:
        """Addresses at which it serves: every one of the host's includes the loopback."""
        return (self.host, *({"0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}.get(self.host, ())))  # noqa: S104


_FIELDS = frozenset(field.name for field in fields(ExporterAddress))


def start_exporter(spool: Path, host: str = "127.0.0.1", port: int = 9464) -> bool:
    """Start the exporter process unless one lives; return whether it was started.

    It waits neither for the exporter to serve nor for Python to start. A run takes its seat before it calls this,
    so that a leaving exporter cannot miss it.

    Raises:
        OSError: The process cannot be started.
    """
    if not _lock.SUPPORTED:
        _log.warning(
            "this platform has no POSIX locks: the metrics are not served; pass registry= to serve them"
        )
        return False
    left = _written_address(spool)
    if is_locked(spool / "exporter.lock"):
        return False
    _outdated[spool] = left
    errors = spool / "exporter.stderr"
    full = errors.exists() and errors.stat().st_size > _MAX_ERRORS
    with errors.open("wb" if full else "ab") as output:
        process = subprocess.Popen(  # noqa: S603
            _command(spool, host, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    _starting.append(process)
    _checked[spool] = time.monotonic()
    return True


_checked: dict[Path, float] = {}
"""When an exporter was last looked for or started: a young one has not taken its lock yet."""

_outdated: dict[Path, bytes | None] = {}
"""The address that a killed exporter left behind: the next one holds the lock before it removes it."""

_starting: list[subprocess.Popen[bytes]] = []
"""Processes that fork the exporter and end: their end is collected when the exporter is next looked for."""


def _collect_started() -> None:
    _starting[:] = [process for process in _starting if process.poll() is None]


def ensure_exporter(spool: Path, host: str = "127.0.0.1", port: int = 9464, every: float = 30.0) -> bool:
    """Restart a dead exporter; looks at most once in ``every`` seconds, so that any hook may call it.

    Raises:
        OSError: The spool is gone, or the process cannot be started.
    """
    _collect_started()
    now = time.monotonic()
    if now - _checked.get(spool, -every) < every:
        return False
    _checked[spool] = now
    return start_exporter(spool, host, port)


def exporter_address(spool: Path) -> ExporterAddress | None:
    """Return the live exporter's address, or None when none lives or it does not serve yet."""
    _collect_started()
    if not is_locked(spool / "exporter.lock"):
        return None
    written = _written_address(spool)
    if written is None or written == _outdated.get(spool):
        return None
    try:
        found = json.loads(written)
        return ExporterAddress(**{name: value for name, value in found.items() if name in _FIELDS})
    except (ValueError, TypeError, AttributeError):
        return None


def _written_address(spool: Path) -> bytes | None:
    try:
        return (spool / "exporter.json").read_bytes()
    except OSError:
        return None


def wait_exporter(spool: Path, timeout: float = 5.0) -> ExporterAddress | None:
    """Wait until the exporter serves; None when it does not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while (address := exporter_address(spool)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return address


def _command(spool: Path, host: str, port: int) -> list[str]:
    """Isolated: it imports the standard library and ``_IMPORTS``, nothing from the working directory."""
    options = ["--spool", str(spool), "--host", host, "--port", str(port)]
    return [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, os.pathsep.join(_import_paths()), *options]


def _import_paths() -> list[str]:
    found = (find_spec(name) for name in _IMPORTS)
    parents = (Path(spec.origin).parent.parent for spec in found if spec and spec.origin)
    return list(dict.fromkeys(map(str, parents)))


def _environment() -> dict[str, str]:
    """Only what it needs: it may outlive the training by minutes, and should not keep the user's secrets."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or (name.startswith("LIQUID_TELEMETRY_") and name not in SINK_VARIABLES)
    }
