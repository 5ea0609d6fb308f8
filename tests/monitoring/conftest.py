"""The rules and the Alertmanager configuration as they are shipped, beside real servers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pager
import pytest
import yaml
from pager import MONITORING, Alertmanager, Inbox
from servers import binary, prometheus

from liquid_telemetry.signals import (
    FAILURE_REASONS,
    INTERRUPTION_REASONS,
    JOB_STATES,
    METRICS,
    PHASES,
    STAGES,
)

__all__ = ["prometheus"]

RULES = MONITORING / "prometheus" / "alerts.yml"
RUNBOOKS = MONITORING / "runbooks"


@pytest.fixture(scope="session")
def rules() -> list[dict[str, Any]]:
    """Every rule of ``alerts.yml``."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="session")
def alerts(rules: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The alerts among them, by name."""
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


_SERIES = {
    metric.full_name + suffix: metric
    for metric in METRICS.values()
    for suffix in (("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",))
}
_ADDED = {"job", "instance"}
_VALUES = {
    "state": JOB_STATES,
    "phase": PHASES,
    "stage": STAGES,
    "reason": (*FAILURE_REASONS, *INTERRUPTION_REASONS),
    "dataset": ("train", "val", "test"),
    "component": ("process", "workers", "system", "cuda_allocated", "cuda_reserved"),
    "signal": ("metrics", "tracing", "logging", "exporter"),
}
_NAME = re.compile(r"\b(liquid_nn[_:][\w:]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')


def unknown_names(text: str, recorded: set[str]) -> list[str]:
    """Return the metrics, labels and label values in PromQL that neither the catalogue nor a rule has."""
    wrong = []
    for name, matchers in _NAME.findall(text):
        metric = _SERIES.get(name)
        if metric is None:
            wrong += [] if name in recorded else [name]
            continue
        labels = {*metric.labels, *_ADDED, *(("model_name", "slot") if metric.model_labelled else ())}
        if metric.type == "histogram":
            labels.add("le")
        for label, value in _MATCHER.findall(matchers):
            known = _VALUES.get(label) if not name.startswith("liquid_nn_telemetry") else None
            values = re.split(r"[|]", value) if known else ()
            wrong += [f"{name}{{{label}}}"] if label not in labels else []
            wrong += [f"{name}{{{label}={one}}}" for one in values if one not in (known or ())]
    return wrong


@pytest.fixture(scope="session")
def unknown(rules: list[dict[str, Any]]) -> Callable[[str], list[str]]:
    """Find the names in PromQL that do not exist."""
    recorded = {rule["record"] for rule in rules if "record" in rule}
    return lambda text: unknown_names(text, recorded)


@pytest.fixture
def tool() -> Callable[..., str]:
    """Run a program that must succeed; returns what it prints."""

    def run(name: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [binary(name), *map(str, arguments)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """Where the pager and Slack are."""
    made = Inbox()
    yield made
    made.close()


@pytest.fixture
def alertmanager(tmp_path: Path, inbox: Inbox) -> Iterator[Alertmanager]:
    """A real one, with the shipped routes and no patience."""
    with pager.alertmanager(tmp_path / "alertmanager", inbox) as server:
        yield server
