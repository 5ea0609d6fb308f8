"""What the dashboards take from the alert rules: thresholds, and where the runbooks are."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_RULES = Path(__file__).parents[2] / "prometheus" / "alerts.yml"


def threshold(name: str) -> float:
    """The value of a rule ``liquid_nn:threshold:<name>``."""
    (expr,) = (rule["expr"] for rule in _rules() if rule.get("record") == f"liquid_nn:threshold:{name}")
    found = re.fullmatch(r"vector\(([\d.e]+)\)", expr)
    if found is None:
        raise ValueError(f"threshold {name} is no vector of a number: {expr}")
    return float(found[1])


def recorded(name: str) -> str:
    """The name of a recording rule.

    Raises:
        ValueError: There is no such rule.
    """
    if name not in (rule.get("record") for rule in _rules()):
        raise ValueError(f"no rule records {name!r}")
    return name


def runbooks() -> str:
    """The address of the folder of runbooks, as the alerts name it."""
    (base,) = {
        rule["annotations"]["runbook_url"].rpartition("/")[0] for rule in _rules() if "annotations" in rule
    }
    return str(base)


@cache
def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(_RULES.read_text())["groups"] for rule in group["rules"]]
