"""Prometheus: does it scrape our exporter, are the rules loaded, does it keep exemplars, whom does it tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from liquid_train.doctor.clock import check_clock
from liquid_train.doctor.finding import Area, Finding
from liquid_train.doctor.rules import check_rules
from liquid_train.doctor.web import NoAnswerError, Server

JOB = "liquid-train"
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "host.docker.internal")


class Api:
    """Prometheus' API.

    Args:
        server: Where it is.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer.

        Raises:
            NoAnswerError: It is no answer of Prometheus', or an error.
        """
        reply = self._server.get(f"/api/v1/{path}", **parameters)
        if reply.status in (401, 403):
            raise NoAnswerError(f"it asks for a login (HTTP {reply.status}): http://USER:PASSWORD@…")
        answer = reply.json()
        if not isinstance(answer, dict) or answer.get("status") != "success":
            detail = answer.get("error", "") if isinstance(answer, dict) else ""
            raise NoAnswerError(f"HTTP {reply.status} for {path}, no answer of Prometheus' {detail}".rstrip())
        return answer.get("data")


def check_prometheus(url: str, *, named: bool, exporter: str | None) -> Iterator[Finding]:
    """Yield what is found of a Prometheus.

    Args:
        url: Its base.
        named: Whether the user named it.
        exporter: Base URL of this host's exporter, None when none serves.
    """
    area, server = Area("prometheus", named=named), Server(url)
    api = Api(server)
    try:
        build = api.get("status/buildinfo")
        yield area.ok("address", f"{server.url} is Prometheus {build['version']}")
        yield from check_clock(area, server)
        yield _ready(area, server)
        yield from _targets(area, api.get("targets", state="active")["activeTargets"], exporter)
        yield from check_rules(area, api)
        yield _exemplars(area, api.get("status/flags"))
        yield _alertmanagers(area, api.get("alertmanagers"))
    except NoAnswerError as error:
        yield _unreachable(area, server, error)
    except (KeyError, TypeError, ValueError, AttributeError):
        yield area.foreign("address", f"{server.url} answers, but not as Prometheus does", _START)


_START = "make stack starts one (docs/stack.md); another address: --prometheus URL"


def _unreachable(area: Area, server: Server, error: NoAnswerError) -> Finding:
    report = area.absent if error.nobody else area.foreign
    return report("address", f"{server.url}: {error}", _START)


def _ready(area: Area, server: Server) -> Finding:
    reply = server.get("/-/ready")
    if reply.status == 200:
        return area.ok("ready", "it serves")
    seen = f"HTTP {reply.status}: {reply.body[:80].decode('utf-8', 'replace').strip()}"
    return area.warning("ready", seen, "it replays its log after a start: ask again in a minute")


def _targets(area: Area, targets: list[dict[str, Any]], exporter: str | None) -> Iterator[Finding]:
    ours = [target for target in targets if _is_ours(target, exporter)]
    if not ours:
        yield area.problem(
            "target",
            f"it scrapes no job {JOB}" + (f" and not {exporter}" if exporter else ""),
            "use monitoring/prometheus/prometheus.yml, or add its job to yours; then: "
            "curl -X POST URL/-/reload, or restart it",
        )
        return
    if exporter and not any(_same(target["scrapeUrl"], exporter) for target in ours):
        yield area.problem(
            "target",
            f"{exporter} is not among its targets ({', '.join(target['scrapeUrl'] for target in ours)})",
            "let it read targets.json of the spool: ln -s SPOOL/targets.json monitoring/prometheus/targets/",
        )
    for target in ours:
        yield _target(area, target, exporter)


def _is_ours(target: dict[str, Any], exporter: str | None) -> bool:
    mine = exporter is not None and _same(target["scrapeUrl"], exporter)
    return mine or target.get("scrapePool") == JOB or target["labels"].get("job") == JOB


def _same(scraped: str, exporter: str) -> bool:
    """Whether they are one address: a container may know the loopback by another name."""
    one, other = urlsplit(scraped), urlsplit(exporter)
    local = one.hostname in _LOOPBACK and other.hostname in _LOOPBACK
    return one.port == other.port and (local or one.hostname == other.hostname)


def _target(area: Area, target: dict[str, Any], exporter: str | None) -> Finding:
    url, health, error = target["scrapeUrl"], target["health"], target.get("lastError", "")
    if health == "up":
        age = _age(target["lastScrape"])
        seen = f"{url} is up, scraped {age:.0f} s ago in {target['lastScrapeDuration'] * 1e3:.0f} ms"
        return area.ok("target", seen)
    if health == "unknown":
        return area.warning("target", f"{url} has not been scraped yet", "ask again in some seconds")
    if exporter is None or not _same(url, exporter):
        return area.warning(
            "target",
            f"{url} is down ({error})",
            "right while no run is there, because the exporter comes and goes with runs",
        )
    return area.problem(
        "target",
        f"{url} is down ({error}), although the exporter answers here",
        "Prometheus cannot reach it: --telemetry.host 0.0.0.0, or host networking (docs/stack.md)",
    )


def _age(text: str) -> float:
    """Seconds since a time that is written with nanoseconds, which Python 3.10 does not read."""
    offset = "+00:00" if text.endswith("Z") else text[-6:]
    return max(0.0, time.time() - datetime.fromisoformat(text[:19] + offset).timestamp())


def _exemplars(area: Area, flags: dict[str, str]) -> Finding:
    if "exemplar-storage" in flags.get("enable-feature", "").split(","):
        return area.ok("exemplars", "kept: a point of a batch time opens its trace")
    return area.warning(
        "exemplars",
        "not kept, so no point leads to its trace",
        "start it with --enable-feature=exemplar-storage",
    )


def _alertmanagers(area: Area, found: dict[str, Any]) -> Finding:
    active = [str(one["url"]) for one in found["activeAlertmanagers"]]
    if active:
        return area.ok("alerts", f"sent to {', '.join(active)}")
    return area.warning(
        "alerts",
        "it knows no Alertmanager, so nobody is told of an alert",
        "add the part alerting of monitoring/prometheus/prometheus.yml",
    )
