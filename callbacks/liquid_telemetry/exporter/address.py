"""Getting an address, and telling the training processes and Prometheus about it."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from liquid_telemetry.exporter.server import HttpServer
from liquid_telemetry.spool import ExporterAddress, write_atomically

LOOPBACK = "127.0.0.1"


async def bind(server: HttpServer, host: str, port: int, previous: int | None) -> ExporterAddress:
    """Listen at the address asked for, else at a free port, else at a free port of the loopback.

    Args:
        server: Not listening yet.
        host: Address asked for.
        port: Port asked for; 0 for the previous one, else a free one.
        previous: Port of the exporter before this one.

    Raises:
        OSError: Not even the loopback has a free port.
    """
    attempts = [(host, port or previous or 0), (host, 0), (LOOPBACK, 0)]
    failure: OSError | None = None
    for attempt_host, attempt_port in attempts:
        try:
            bound = await server.start(attempt_host, attempt_port)
        except OSError as error:
            failure = failure or error
            continue
        url = f"http://{_reachable(attempt_host)}:{bound}"
        granted = attempt_host == host and port in (0, bound)
        notice = None if granted else f"{host}:{port} cannot be had ({_reason(failure)}); serving at {url}"
        return ExporterAddress(url, attempt_host, bound, os.getpid(), notice, host, port)
    raise failure or OSError(f"no free port at {LOOPBACK}")


def announce(spool: Path, address: ExporterAddress) -> None:
    """Write the address to ``exporter.json`` and, for Prometheus' ``file_sd``, to ``targets.json``."""
    target = address.url.removeprefix("http://")
    write_atomically(spool / "targets.json", _encode([{"targets": [target], "labels": {}}]))
    write_atomically(spool / "exporter.json", _encode(asdict(address)))


def withdraw(spool: Path) -> None:
    """Tell everybody that nothing is served here any more."""
    (spool / "exporter.json").unlink(missing_ok=True)
    write_atomically(spool / "targets.json", _encode([]))


def take_over(spool: Path) -> int | None:
    """Remove the address that a killed exporter left behind, and return its port."""
    path = spool / "exporter.json"
    try:
        port = json.loads(path.read_bytes())["port"]
    except (OSError, ValueError, KeyError, TypeError):
        port = None
    path.unlink(missing_ok=True)
    return port if isinstance(port, int) else None


def _encode(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _reason(failure: OSError | None) -> str:
    if failure is None or not failure.errno:
        return str(failure)
    # A negative number is the resolver's.
    return (os.strerror(failure.errno) if failure.errno > 0 else str(failure.strerror)).lower()


def _reachable(host: str) -> str:
    """Return how a client on this host writes the address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or LOOPBACK
    if address.is_unspecified:
        return LOOPBACK if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"
