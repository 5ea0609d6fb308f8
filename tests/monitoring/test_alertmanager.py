"""Who is told of what, by the shipped configuration in a real Alertmanager."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import eventually

pytestmark = pytest.mark.server("prometheus-alertmanager")

ROUTES = Path(__file__).parents[2] / "monitoring" / "alertmanager" / "alertmanager.yml"
CfC = {"job": "liquid-train", "instance": "a:9464", "model_name": "CfC"}


def test_the_configuration_is_valid(tool: Callable[..., str]) -> None:
    assert "SUCCESS" in tool("amtool", "check-config", ROUTES)


def test_every_alert_reaches_the_receiver_of_its_severity(
    tool: Callable[..., str], alerts: dict[str, dict[str, Any]]
) -> None:
    for name, alert in alerts.items():
        severity = alert["labels"]["severity"]
        labels = [f"alertname={name}", f"severity={severity}", *(f"{k}={v}" for k, v in CfC.items())]
        assert (
            tool("amtool", "config", "routes", "test", f"--config.file={ROUTES}", *labels) == f"{severity}\n"
        )


def test_an_alert_without_a_severity_is_told(tool: Callable[..., str]) -> None:
    answer = tool("amtool", "config", "routes", "test", f"--config.file={ROUTES}", "alertname=Mine")
    assert answer == "warning\n"


def test_no_secret_stands_in_the_file() -> None:
    text = ROUTES.read_text()
    assert not re.search(
        r"^\s*(- )?(\w*(password|api_url|credentials|token|secret|_key)):", text, re.MULTILINE
    )
    receivers = {one["name"]: one for one in yaml.safe_load(text)["receivers"]}
    assert {"webhook_configs", "slack_configs", "email_configs"} <= receivers["critical"].keys()
    assert {"slack_configs", "email_configs"} <= receivers["warning"].keys()


def test_inhibitions_name_alerts_that_exist(alerts: dict[str, dict[str, Any]]) -> None:
    named = set(re.findall(r"\bTraining[A-Z]\w+|\bHigh[A-Z]\w+", ROUTES.read_text()))
    assert named <= alerts.keys()


def alert(name: str, severity: str, **labels: str) -> dict[str, Any]:
    url = f"https://example.org/{name}.md"
    annotations = {"summary": f"{name} summary", "description": "what", "runbook_url": url}
    return {"labels": {"alertname": name, "severity": severity, **CfC, **labels}, "annotations": annotations}


def test_a_failure_is_one_page_with_its_runbook(alertmanager: Any, inbox: Any) -> None:
    failed = alert("TrainingJobFailed", "critical", reason="killed")
    alertmanager.post(
        failed,
        alert("TrainingJobVanished", "critical"),
        alert("TrainingStalled", "critical", state="stalled"),
        {**alert("TrainingTelemetryDegraded", "warning", signal="metrics", model_name="")},
        alert("TrainingStalled", "critical", state="stalled", slot="1"),
    )
    pages = [inbox.get("/pager") for _ in range(2)]
    told = [
        (item["labels"]["alertname"], item["labels"].get("slot"))
        for _, page in pages
        for item in page["alerts"]
    ]
    assert sorted(told, key=str) == [("TrainingJobFailed", None), ("TrainingStalled", "1")]
    assert {authorization for authorization, _ in pages} == {"Bearer t0ken"}
    (page,) = (page for _, page in pages if page["groupLabels"]["alertname"] == "TrainingJobFailed")
    assert page["alerts"][0]["annotations"] == failed["annotations"]

    def states() -> dict[tuple[str, str], str]:
        found = alertmanager.alerts()
        return {
            (one["labels"]["alertname"], one["labels"].get("slot", "")): one["status"]["state"]
            for one in found
        }

    expected = {
        ("TrainingJobFailed", ""): "active",
        ("TrainingJobVanished", ""): "suppressed",
        ("TrainingStalled", ""): "suppressed",
        ("TrainingTelemetryDegraded", ""): "suppressed",
        ("TrainingStalled", "1"): "active",
    }
    eventually(lambda: states() == expected)


def test_slack_is_told_of_a_warning_and_the_pager_is_not(alertmanager: Any, inbox: Any) -> None:
    alertmanager.post(alert("TrainingEpochSlow", "warning"))
    _, message = inbox.get("/slack")
    assert message["channel"] == "#training"
    (attachment,) = message["attachments"]
    assert attachment["title"] == "[FIRING] TrainingEpochSlow"
    assert "<https://example.org/TrainingEpochSlow.md|Runbook>" in attachment["text"]
    assert [post.path for post in inbox.received] == ["/slack"]


def test_a_host_that_is_lost_is_one_page(alertmanager: Any, inbox: Any) -> None:
    alertmanager.post(*(alert("TrainingJobVanished", "critical", model_name=name) for name in ("CfC", "LTC")))
    _, page = inbox.get("/pager")
    assert sorted(item["labels"]["model_name"] for item in page["alerts"]) == ["CfC", "LTC"]
