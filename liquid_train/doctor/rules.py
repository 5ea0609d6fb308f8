"""The alert rules that Prometheus has loaded, against those that are shipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

import yaml

from liquid_train.doctor.finding import Area, Finding
from liquid_train.doctor.web import NoAnswerError

THRESHOLD = "liquid_nn:threshold:"
_RELOAD = (
    "copy monitoring/prometheus/alerts.yml to its rule_files, then curl -X POST URL/-/reload, or restart it"
)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Queries(Protocol):
    """Prometheus' API."""

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer."""


class Rule(NamedTuple):
    """What a rule does.

    Args:
        expr: Its expression.
        seconds: How long it has to hold.
        severity: Of an alert.
    """

    expr: str
    seconds: float
    severity: str


def shipped_rules() -> dict[str, Rule]:
    """Return the rules of this version by the names of their alerts or series."""
    text = files("liquid_train.doctor").joinpath("alerts.yml").read_text("utf-8")
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    return {rule.get("alert") or rule["record"]: _shipped(rule) for rule in rules}


def check_rules(area: Area, api: Queries) -> Iterator[Finding]:
    """Yield whether the shipped rules are loaded, are the same and can be evaluated.

    Raises:
        NoAnswerError: Prometheus does not say what it has loaded.
    """
    loaded = {rule["name"]: rule for group in api.get("rules")["groups"] for rule in group["rules"]}
    shipped = shipped_rules()
    missing = [name for name in shipped if name not in loaded]
    if missing:
        yield area.problem(
            "rules", f"{len(missing)} of {len(shipped)} are not loaded: {_some(missing)}", _RELOAD
        )
    broken = {name: loaded[name]["lastError"] for name in shipped if loaded.get(name, {}).get("lastError")}
    for name, error in broken.items():
        yield area.problem("rules", f"{name} cannot be evaluated: {error}", _RELOAD)
    try:
        differing = [name for name in shipped if name in loaded and _differ(api, loaded[name], shipped[name])]
    except NoAnswerError as error:
        yield area.warning(
            "rules", f"not compared with those shipped: {error}", "update Prometheus to 2.40 or later"
        )
        return
    changed = [name for name in differing if not name.startswith(THRESHOLD)]
    if changed:
        yield area.warning("rules", f"{len(changed)} are not as shipped: {_some(changed)}", _RELOAD)
    if not (missing or broken or changed):
        yours = [name.removeprefix(THRESHOLD) for name in differing]
        note = f"; thresholds of yours: {', '.join(yours)}" if yours else ""
        yield area.ok("rules", f"all {len(shipped)} are loaded, as shipped{note}")


def _shipped(rule: Mapping[str, Any]) -> Rule:
    duration = str(rule.get("for", "0s"))
    seconds = float(duration[:-1]) * _SECONDS[duration[-1]]
    return Rule(rule["expr"], seconds, rule.get("labels", {}).get("severity", ""))


def _loaded(rule: Mapping[str, Any]) -> Rule:
    severity = rule.get("labels", {}).get("severity", "")
    return Rule(rule["query"], float(rule.get("duration", 0)), severity)


def _differ(api: Queries, loaded: Mapping[str, Any], shipped: Rule) -> bool:
    return _canonical(api, _loaded(loaded)) != _canonical(api, shipped)


def _canonical(api: Queries, rule: Rule) -> Rule:
    """Prometheus prints what it has loaded its own way; so both are compared as it prints them."""
    return rule._replace(expr=str(api.get("format_query", query=rule.expr)))


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
