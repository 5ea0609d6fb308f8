"""The shipped rules: complete, valid, tested by promtool, and about metrics that exist."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.server("promtool")

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "monitoring" / "prometheus"
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))
SEVERITIES = {
    "HighErrorRate": "critical",
    "HighMemoryUsage": "warning",
    "ModelAccuracyDegradation": "warning",
    "TrainingJobFailed": "critical",
    "TrainingJobVanished": "critical",
    "TrainingJobInterrupted": "warning",
    "TrainingStalled": "critical",
    "TrainingNotStarted": "warning",
    "TrainingLossNotFinite": "warning",
    "TrainingEpochSlow": "warning",
    "TrainingThroughputDropped": "warning",
    "TrainingStraggler": "warning",
    "TrainingTelemetryDegraded": "warning",
    "PerformanceRegression": "warning",
}


def test_promtool_takes_the_configuration_and_the_rules(tool: Callable[..., str]) -> None:
    assert "SUCCESS" in tool("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    assert "SUCCESS" in tool("promtool", "check", "rules", PROMETHEUS / "alerts.yml")


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_promtool_cases(cases: Path, tool: Callable[..., str]) -> None:
    assert "SUCCESS" in tool("promtool", "test", "rules", cases)


def test_a_wrong_expectation_fails(tmp_path: Path, tool: Callable[..., str]) -> None:
    text = (
        (PROMETHEUS / "tests" / "jobs.yml")
        .read_text()
        .replace("../alerts.yml", str(PROMETHEUS / "alerts.yml"))
    )
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(text.replace("reason killed. The", "reason cured. The"))
    with pytest.raises(AssertionError, match="cured"):
        tool("promtool", "test", "rules", wrong)


def test_every_alert_is_there_and_complete(alerts: dict[str, dict[str, Any]]) -> None:
    assert {name: alert["labels"] for name, alert in alerts.items()} == {
        name: {"severity": severity} for name, severity in SEVERITIES.items()
    }
    for name, alert in alerts.items():
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"].endswith(f"/monitoring/runbooks/{name}.md")


def test_metrics_and_labels_exist(rules: list[dict[str, Any]], unknown: Callable[[str], list[str]]) -> None:
    assert [wrong for rule in rules for wrong in unknown(rule["expr"])] == []


def test_names_that_do_not_exist_are_found(unknown: Callable[[str], list[str]]) -> None:
    assert unknown("liquid_nn_training_lost") == ["liquid_nn_training_lost"]
    assert unknown('liquid_nn_training_active{stage="train"}') == ["liquid_nn_training_active{stage}"]
    assert unknown('liquid_nn_api_calls_total{model_name="x"}') == ["liquid_nn_api_calls_total{model_name}"]
    assert unknown('liquid_nn_training_job_state{state="stuck"}') == [
        "liquid_nn_training_job_state{state=stuck}"
    ]


def test_thresholds_are_named_once(rules: list[dict[str, Any]]) -> None:
    thresholds = {rule["record"]: rule["expr"] for rule in rules if ":threshold:" in rule.get("record", "")}
    alerts = [rule["expr"] for rule in rules if "alert" in rule]
    assert all(re.fullmatch(r"vector\([\d.e]+\)", expression) for expression in thresholds.values())
    assert set(re.findall(r"liquid_nn:threshold:\w+", " ".join(alerts))) == set(thresholds)
    compared = re.findall(r"[<>=!]=?\s*([\d.]+)", " ".join(re.sub(r"\{[^}]*\}", "", one) for one in alerts))
    assert set(compared) == {"0", "1"}


def test_thresholds_come_before_the_alerts(rules: list[dict[str, Any]]) -> None:
    """One group, evaluated in order: an alert never waits for the next evaluation."""
    kinds = ["record" if "record" in rule else "alert" for rule in rules]
    assert kinds == sorted(kinds, reverse=True)
    assert len(yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]) == 1


def test_every_alert_fires_in_a_case_and_is_silent_in_as_many(alerts: dict[str, dict[str, Any]]) -> None:
    fires, silent = Counter[str](), Counter[str]()
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for expected in case.get("alert_rule_test", []):
                counter = fires if expected.get("exp_alerts") else silent
                counter[expected["alertname"]] += 1
    assert fires.keys() == alerts.keys()
    assert all(silent[name] >= fires[name] for name in alerts)
