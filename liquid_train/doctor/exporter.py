"""The exporter: does it serve, is it ours, who has its port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from liquid_telemetry.spool import ExporterAddress, exporter_address, is_locked
from liquid_train.doctor.clock import check_clock
from liquid_train.doctor.finding import Area, Finding
from liquid_train.doctor.web import NoAnswerError, Server

USUAL = "http://127.0.0.1:9464"
_AREA = Area("exporter")
_NOBODY = Area("exporter", named=False).absent("process", "none runs: it starts with a run", "")


def check_exporter(spool: Path | None) -> Iterator[Finding]:
    """Yield what is found of the exporter of a spool, or of who has its usual port."""
    if spool is None or not is_locked(spool / "exporter.lock"):
        yield _NOBODY
        yield from check_port()
        return
    address = exporter_address(spool)
    if address is None:
        yield _AREA.warning(
            "address",
            "an exporter lives but has not told its address",
            f"it may just be starting: ask again; else see {spool}/exporter.log",
        )
        return
    yield from _check_served(spool, address)
    yield from _check_log(spool)


def check_port(url: str = USUAL) -> Iterator[Finding]:
    """Yield who has the port that the next exporter asks for."""
    server = Server(url)
    try:
        answer = server.get("/live").json()
        ours = isinstance(answer, dict) and answer.get("status") == "alive"
    except NoAnswerError as error:
        if error.nobody:
            yield _AREA.ok("port", f"{server.port} is free")
            return
        ours = False
    whose = "the exporter of another spool or user" if ours else "another program"
    yield _AREA.warning(
        "port",
        f"{server.port} is taken by {whose}, so the next exporter takes a free one",
        f"Prometheus finds it by targets.json of the spool; who has it: ss -ltnp 'sport = :{server.port}'; "
        "another port: --telemetry.port",
    )


def _check_served(spool: Path, address: ExporterAddress) -> Iterator[Finding]:
    server = Server(address.url)
    restart = f"kill {address.pid}   (a live run starts another within 30 s); log: {spool}/exporter.log"
    try:
        alive = server.get("/live").json()
        health: Any = server.get("/health").json()
        if not isinstance(health, dict) or not isinstance(alive, dict) or alive.get("status") != "alive":
            raise NoAnswerError("its answers are not an exporter's")
    except NoAnswerError as error:
        yield _AREA.problem("address", f"{address.url} (pid {address.pid}): {error}", restart)
        return
    yield _AREA.ok("address", f"{address.url} answers (pid {address.pid})")
    if address.notice:
        yield _AREA.warning("port", address.notice, "--telemetry.port chooses another; targets.json names it")
    yield _version(str(health.get("version")), restart)
    yield from check_clock(_AREA, server)
    if health.get("status") == "healthy":
        yield _AREA.ok("health", "healthy")
    else:
        seen = f"{health.get('status')}: {health.get('reason', 'no reason given')}"
        yield _AREA.warning(
            "health", seen, f"curl -s {address.url}/health; docs/health.md says what it means"
        )


def _version(theirs: str, restart: str) -> Finding:
    try:
        ours = version("liquid-train")
    except PackageNotFoundError:
        ours = "unknown"
    if theirs == ours:
        return _AREA.ok("version", f"{theirs}, as installed here")
    return _AREA.warning("version", f"it is {theirs}, installed here is {ours}", restart)


def _check_log(spool: Path) -> Iterator[Finding]:
    with suppress(OSError):
        path = spool / "exporter.stderr"
        lines = path.read_bytes()[-4000:].decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), None)
        if last is not None:
            yield _AREA.warning("errors", f"it, or one before it, wrote: {last[:160]}", f"see {path}")
