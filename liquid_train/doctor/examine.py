"""All checks at once, none waited for longer than it may take."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from liquid_telemetry.spool import exporter_address
from liquid_train.doctor.alertmanager import check_alertmanager
from liquid_train.doctor.exporter import check_exporter
from liquid_train.doctor.finding import PROBLEM, Finding
from liquid_train.doctor.grafana import check_grafana
from liquid_train.doctor.machine import check_machine
from liquid_train.doctor.otlp import USUAL, check_otlp, configured
from liquid_train.doctor.prometheus import check_prometheus
from liquid_train.doctor.spool import check_leftovers, check_locks, find_spool

DEADLINE = 20.0
DEFAULTS = {
    "prometheus": "http://127.0.0.1:9090",
    "alertmanager": "http://127.0.0.1:9093",
    "grafana": "http://127.0.0.1:3000",
    "otlp": USUAL,
}
"""Where the shipped stack serves."""

Check = Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class Wanted:
    """What to look at.

    Args:
        urls: By name of :data:`DEFAULTS`, those that the user named.
        test_alert: Severity of a test alert; None sends none.
        runs: Folder of the run directories.
    """

    urls: dict[str, str] = field(default_factory=dict)
    test_alert: str | None = None
    runs: Path = Path("runs")


def examine(wanted: Wanted) -> list[Finding]:
    """Return every finding, by area."""
    spool, usable = find_spool()
    address = exporter_address(spool) if spool is not None else None
    folders = {"runs": wanted.runs, **({"the spool": spool} if spool is not None else {})}
    checks: list[tuple[str, Check]] = [
        ("machine", lambda: check_machine(folders)),
        ("spool", lambda: _spool(spool, usable, exporter=address is not None)),
        ("exporter", lambda: check_exporter(spool)),
        *_servers(wanted, address.url if address is not None else None),
    ]
    return list(_together(checks))


def _spool(spool: Path | None, usable: Finding, *, exporter: bool) -> Iterator[Finding]:
    yield usable
    if spool is not None:
        yield check_locks(spool)
        yield from check_leftovers(spool, exporter=exporter)


def _servers(wanted: Wanted, exporter: str | None) -> Iterator[tuple[str, Check]]:
    urls = dict(wanted.urls)
    variable = configured(os.environ)
    if variable is not None:
        urls.setdefault("otlp", variable)

    def where(name: str) -> tuple[str, bool]:
        return urls.get(name, DEFAULTS[name]), name in urls

    url, named = where("prometheus")
    yield "prometheus", partial(check_prometheus, url, named=named, exporter=exporter)
    url, named = where("alertmanager")
    asked = named or wanted.test_alert is not None
    yield "alertmanager", partial(check_alertmanager, url, named=asked, test=wanted.test_alert)
    url, named = where("otlp")
    yield "otlp", partial(check_otlp, url, named=named, environment=os.environ)
    url, named = where("grafana")
    yield "grafana", partial(check_grafana, url, named=named)


def _together(checks: list[tuple[str, Check]]) -> Iterator[Finding]:
    """Do the checks side by side, and yield what they find in their order."""
    found: dict[str, list[Finding]] = {area: [] for area, _ in checks}
    threads = [
        threading.Thread(target=_do, args=(area, check, found[area]), daemon=True, name=f"doctor {area}")
        for area, check in checks
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + DEADLINE
    for (area, _), thread in zip(checks, threads, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        yield from list(found[area])
        if thread.is_alive():
            seen = f"not finished after {DEADLINE:g} s"
            yield Finding(area, "check", PROBLEM, seen, "ask again; a disk or a server may hang")


def _do(area: str, check: Check, found: list[Finding]) -> None:
    try:
        found.extend(check())
    except Exception as error:
        seen = f"the check itself failed: {type(error).__name__}: {error}"
        found.append(Finding(area, "check", PROBLEM, seen, "please report this with the output of --json"))
