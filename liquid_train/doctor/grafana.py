"""Grafana: is it there, and do its data sources answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from liquid_train.doctor.clock import check_clock
from liquid_train.doctor.finding import Area, Finding
from liquid_train.doctor.web import NoAnswerError, Reply, Server

SOURCES = ("prometheus", "loki", "jaeger")
"""Ids of the data sources of ours that Grafana can ask itself."""

_START = "make stack starts one (docs/stack.md); another address: --grafana URL"
_LOGIN = "set GRAFANA_TOKEN to a service account's, or say --grafana http://USER:PASSWORD@HOST:PORT"


def check_grafana(url: str, *, named: bool, token: str | None = None) -> Iterator[Finding]:
    """Yield what is found of a Grafana.

    Args:
        url: Its base, perhaps with a user and password.
        named: Whether the user named it.
        token: Of a service account; by default ``$GRAFANA_TOKEN``.
    """
    token = os.environ.get("GRAFANA_TOKEN") if token is None else token
    area = Area("grafana", named=named)
    server = Server(url, {"Authorization": f"Bearer {token}"} if token else None)
    try:
        reply = server.get("/api/health")
        health = reply.json()
        if reply.status != 200 or health["database"] != "ok":
            yield area.foreign("address", f"{server.url}: HTTP {reply.status}, {health}", _START)
            return
        yield area.ok("address", f"{server.url} is Grafana {health.get('version', '(hides its version)')}")
        yield from check_clock(area, server)
        yield from _sources(area, server)
    except NoAnswerError as error:
        report = area.absent if error.nobody else area.foreign
        yield report("address", f"{server.url}: {error}", _START)
    except (KeyError, TypeError, AttributeError):
        yield area.foreign("address", f"{server.url} answers, but not as Grafana does", _START)


def _sources(area: Area, server: Server) -> Iterator[Finding]:
    for source in SOURCES:
        reply = server.get(f"/api/datasources/uid/{source}/health")
        if reply.status in (401, 403):
            said = "refuses the login" if server.has_login else "asks for a login"
            yield area.warning("data sources", f"not looked at: it {said} (HTTP {reply.status})", _LOGIN)
            return
        yield _source(area, source, reply)


def _source(area: Area, source: str, reply: Reply) -> Finding:
    check = f"data source {source}"
    if reply.status == 404:
        todo = "provision monitoring/grafana/provisioning/datasources/datasources.yaml"
        return area.warning(check, f"there is none with the id {source}, which the dashboards ask for", todo)
    answer: Any = reply.json()
    if reply.status == 200 and answer.get("status") == "OK":
        return area.ok(check, str(answer.get("message", "answers")))
    seen = f"HTTP {reply.status}: {answer.get('message', answer)}"
    todo = "its URL must be one that Grafana itself can reach (docs/grafana.md)"
    return (area.problem if source == "prometheus" else area.warning)(check, seen, todo)
