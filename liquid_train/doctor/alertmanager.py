"""Alertmanager: is it there, and does an alert get through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from liquid_train.doctor.clock import check_clock
from liquid_train.doctor.finding import Area, Finding
from liquid_train.doctor.web import NoAnswerError, Server

TEST_ALERT = "LiquidTrainTestAlert"
_LASTS = timedelta(minutes=2)
_START = "make stack starts one (docs/stack.md); another address: --alertmanager URL"


def check_alertmanager(url: str, *, named: bool, test: str | None = None) -> Iterator[Finding]:
    """Yield what is found of an Alertmanager.

    Args:
        url: Its base.
        named: Whether the user named it, or asked for a test alert.
        test: Severity of a test alert to send; None sends none.
    """
    area, server = Area("alertmanager", named=named), Server(url)
    try:
        reply = server.get("/api/v2/status")
        if reply.status != 200:
            raise NoAnswerError(f"HTTP {reply.status} for /api/v2/status")
        version = reply.json()["versionInfo"]["version"]
        yield area.ok("address", f"{server.url} is Alertmanager {version}")
        yield from check_clock(area, server)
        if test is not None:
            yield _send(area, server, test)
    except NoAnswerError as error:
        report = area.absent if error.nobody else area.foreign
        yield report("address", f"{server.url}: {error}", _START)
    except (KeyError, TypeError, AttributeError):
        yield area.foreign("address", f"{server.url} answers, but not as Alertmanager does", _START)


def _send(area: Area, server: Server, severity: str) -> Finding:
    """Send an alert that ends by itself, and see that it is there."""
    now = datetime.now(timezone.utc)
    alert = {
        "labels": {"alertname": TEST_ALERT, "severity": severity, "job": "liquid-train"},
        "annotations": {
            "summary": "A test of liquid-train doctor; nothing is wrong",
            "description": "Somebody asked liquid-train doctor to send this alert. It ends by itself.",
        },
        "startsAt": now.isoformat(),
        "endsAt": (now + _LASTS).isoformat(),
    }
    reply = server.post("/api/v2/alerts", json.dumps([alert]).encode(), "application/json")
    if reply.status != 200:
        seen = f"refused with HTTP {reply.status}: {reply.body[:120].decode('utf-8', 'replace').strip()}"
        return area.problem("test alert", seen, "see the log of Alertmanager")
    found: list[dict[str, Any]] = server.get("/api/v2/alerts", filter=f'alertname="{TEST_ALERT}"').json()
    routed = sorted(
        {
            str(receiver["name"])
            for one in found
            if one["labels"].get("severity") == severity
            for receiver in one["receivers"]
        }
    )
    if not routed:
        return area.problem("test alert", "taken, but not there", "see the log of Alertmanager")
    if all(one["status"]["state"] == "suppressed" for one in found):
        return area.warning("test alert", "taken, but silenced or inhibited", "amtool silence query")
    seen = f"{TEST_ALERT} ({severity}) goes to the receiver {', '.join(routed)} and ends in two minutes by itself"
    return area.ok("test alert", seen)
