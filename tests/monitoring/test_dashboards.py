"""The dashboards: made from the catalogue, complete, about series that exist, with links that lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from dashboards import DASHBOARDS, FOLDER, Asked, annotations, fill, panels, queries, variables

from liquid_telemetry.signals import METRICS
from liquid_telemetry.signals._events import COMMON_FIELDS

ROOT = Path(__file__).parents[2]
UIDS = {
    "inference-and-api": "liquid-train-inference",
    "telemetry-health": "liquid-train-health",
    "training-overview": "liquid-train-overview",
    "training-run": "liquid-train-run",
}
SOURCES = {"datasource": "prometheus", "logs": "loki", "traces": "jaeger"}
FOREIGN = {
    "up": set(),
    "scrape_duration_seconds": set(),
    "scrape_samples_scraped": set(),
    "scrape_series_added": set(),
    "ALERTS": {"alertname", "alertstate", "severity", "model_name"},
    "prometheus_rule_evaluation_failures_total": {"rule_group"},
    "prometheus_rule_group_interval_seconds": {"rule_group"},
    "prometheus_rule_group_last_duration_seconds": {"rule_group"},
    "prometheus_tsdb_head_series": set(),
    "alertmanager_notifications_total": {"integration"},
    "alertmanager_notifications_failed_total": {"integration"},
}
LABELS = {"job", "instance", "model_name", "slot", "le", "__name__"}
LABELS |= {label for metric in METRICS.values() for label in metric.labels}
LABELS |= {label for labels in FOREIGN.values() for label in labels}
WORDS = {"or", "and", "unless", "bool"}

each = pytest.mark.parametrize("name", sorted(DASHBOARDS))
each_panel = pytest.mark.parametrize(
    "panel",
    [pytest.param(p, id=f"{name}/{p['title']}") for name, d in DASHBOARDS.items() for p in panels(d)],
)
each_query = pytest.mark.parametrize("asked", list(queries()), ids=str)


def test_they_are_made_from_the_catalogue() -> None:
    """What the generator makes is what is committed, to the byte."""
    pytest.importorskip("grafana_foundation_sdk", reason="the SDK needs Python 3.11")
    from monitoring.grafana.generate import files

    made = files()
    assert {path.name for path in made} == {f"{name}.json" for name in UIDS} | {"panels.md"}
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in UIDS}
    for path, text in made.items():
        assert path.is_relative_to(ROOT)
        assert path.read_text(encoding="utf-8") == text, "run: make dashboards"


def test_a_name_that_is_not_in_the_catalogue_cannot_be_used() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="the SDK needs Python 3.11")
    from monitoring.grafana.generate.queries import Scope
    from monitoring.grafana.generate.rules import recorded

    with pytest.raises(ValueError, match="no metric 'training_lost'"):
        Scope().series("training_lost")
    with pytest.raises(ValueError, match="training_loss has no label stage"):
        Scope().series("training_loss", stage="train")
    with pytest.raises(ValueError, match="no rule records 'nothing'"):
        recorded("nothing")


@each
def test_a_dashboard_has_its_uid_a_description_and_sources(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == UIDS[name]
    assert dashboard["description"].endswith(".")
    found = variables(dashboard)
    assert list(found)[:6] == [*SOURCES, "job", "instance", "model"]
    for source, kind in SOURCES.items():
        assert (found[source]["type"], found[source]["query"]) == ("datasource", kind)
        assert found[source]["current"]["value"] == kind
    for variable in list(found.values())[len(SOURCES) :]:
        assert variable["type"] == "query"
        assert variable["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_panel
def test_a_panel_has_unit_description_source_legend_and_thresholds(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    kind, variable = ("loki", "logs") if panel["type"] == "logs" else ("prometheus", "datasource")
    source = {"type": kind, "uid": f"${{{variable}}}"}
    assert panel["datasource"] == source
    assert panel["targets"]
    assert all(target["datasource"] == source for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    LEGENDS[panel["type"]](panel)


def _legend_of_a_graph(panel: dict[str, Any]) -> None:
    assert panel["options"]["legend"]["showLegend"] is True
    _legend_of_values(panel)


def _legend_of_values(panel: dict[str, Any]) -> None:
    assert all(target["legendFormat"] for target in panel["targets"])


def _legend_of_a_table(panel: dict[str, Any]) -> None:
    organize = panel["transformations"][-1]["options"]
    values = ["Value"] if len(panel["targets"]) == 1 else [f"Value #{t['refId']}" for t in panel["targets"]]
    named = {**organize["renameByName"], **organize["excludeByName"]}
    assert set(values) | {"Time"} <= set(named)
    shown = set(organize["renameByName"].values())
    assert {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]} <= shown


LEGENDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "timeseries": _legend_of_a_graph,
    "state-timeline": _legend_of_a_graph,
    "stat": _legend_of_values,
    "bargauge": _legend_of_values,
    "table": _legend_of_a_table,
    "logs": lambda panel: None,
}


@each
def test_ids_and_titles_are_unique_and_nothing_overlaps(name: str) -> None:
    every = DASHBOARDS[name]["panels"]
    assert len({panel["title"] for panel in every}) == len(every)
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def names_in(expr: str) -> set[str]:
    """Every name in PromQL that is no function, label or number: the series it reads."""
    bare = re.sub(r"\{[^{}]*\}|\[[^]]*\]", " ", expr)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"\b[a-zA-Z_][\w:]*\b(?!\s*\()", bare)) - WORDS


def labels_in(expr: str) -> set[str]:
    """Every label that PromQL matches or groups by."""
    groups = re.findall(r"\b(?:by|on|without|ignoring|group_left)\s*\(([^)]*)\)", expr)
    matched = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expr)
    return {label.strip() for group in groups for label in group.split(",") if label.strip()} | set(matched)


@each_query
def test_series_and_labels_exist(
    asked: Asked, unknown: Callable[[str], list[str]], rules: list[dict[str, Any]]
) -> None:
    assert unknown(asked.expr) == []
    recorded = {rule["record"] for rule in rules if "record" in rule}
    read = {name for name in names_in(asked.expr) if not name.startswith("liquid_nn_")}
    assert read <= FOREIGN.keys() | recorded
    shown = set(re.findall(r"{{(\w+)}}", asked.target["legendFormat"]))
    assert labels_in(asked.expr) | shown <= LABELS


def test_the_readers_of_promql_find_what_they_should() -> None:
    expr = (
        'sum by (le, a) (rate(x_total{b="1", c!~"u|v"}[5m])) / on (d) group_left (e) y:z > 0.5 or vector(0)'
    )
    assert names_in(expr) == {"x_total", "y:z"}
    assert labels_in(expr) == {"le", "a", "b", "c", "d", "e"}


def test_every_metric_of_the_catalogue_is_shown() -> None:
    shown = " ".join(asked.expr for asked in queries())
    hidden = {name for name, metric in METRICS.items() if not re.search(rf"\b{metric.full_name}", shown)}
    assert hidden == set()


@each
def test_variables_and_annotations_read_series_that_exist(
    name: str, unknown: Callable[[str], list[str]]
) -> None:
    for variable in list(variables(DASHBOARDS[name]).values())[len(SOURCES) :]:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert asked is not None
        assert unknown(asked[1]) == []
        assert asked[2] in LABELS | {"run_id"}
    kinds = {annotation["name"]: annotation for where, annotation in annotations() if where == name}
    assert list(kinds) == ["Firing alerts", "Checkpoints"]
    assert names_in(kinds["Firing alerts"]["target"]["expr"]) == {"ALERTS"}
    assert unknown(kinds["Checkpoints"]["target"]["expr"]) == []


@each
def test_every_variable_that_is_used_is_there(name: str) -> None:
    dashboard = DASHBOARDS[name]
    text = json.dumps(dashboard)
    used = set(re.findall(r"\$\{?([a-z]\w*)", text)) - set(re.findall(r"var-(\w+)=", text))
    assert used <= variables(dashboard).keys()


@pytest.mark.server("promtool")
def test_every_query_is_promql(tmp_path: Path, tool: Callable[..., str]) -> None:
    found = [asked.filled() for asked in queries()]
    found += [fill(annotation["target"]["expr"]) for _, annotation in annotations()]
    rules = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(found)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(found)} rules found" in tool("promtool", "check", "rules", path)


def links(dashboard: dict[str, Any]) -> Iterator[str]:
    """Every address that a dashboard links to."""
    yield from (link["url"] for link in dashboard["links"])
    for panel in panels(dashboard):
        for override in panel["fieldConfig"]["overrides"]:
            for changed in override["properties"]:
                if changed["id"] == "links":
                    yield from (link["url"] for link in changed["value"])


@each
def test_links_lead_somewhere(name: str, alerts: dict[str, dict[str, Any]]) -> None:
    dashboard, boards = DASHBOARDS[name], {board["uid"]: board for board in DASHBOARDS.values()}
    folder = {alert["annotations"]["runbook_url"].rpartition("/")[0] for alert in alerts.values()}
    found = list(links(dashboard))
    for url in found:
        if url.startswith("/d/"):
            target = boards[url.removeprefix("/d/").partition("?")[0]]
            assert set(re.findall(r"var-(\w+)=", url)) <= variables(target).keys()
        elif url.startswith("/explore?"):
            _explores(url, dashboard)
        else:
            base, _, page = url.rpartition("/")
            assert {base} == folder
            for alert in alerts:
                named = page.replace("${__data.fields.Alert}", alert)
                assert (ROOT / "monitoring" / "runbooks" / named).exists()
    others = [f"/d/{uid}" for uid in boards if uid != dashboard["uid"]]
    assert sorted(url for url in found if url in others) == sorted(others)
    for link in dashboard["links"]:
        if link["url"] in others:
            assert link["includeVars"]
            assert link["keepTime"]


def _explores(url: str, dashboard: dict[str, Any]) -> None:
    text = url.partition("&panes=")[2]
    assert not set(text) & set('" |\\<>')
    (pane,) = json.loads(unquote(text)).values()
    (query,) = pane["queries"]
    variable = pane["datasource"].strip("${}")
    assert variable in variables(dashboard)
    assert query["datasource"] == {"type": SOURCES[variable], "uid": pane["datasource"]}
    assert pane["range"] == {"from": "${__from}", "to": "${__to}"}


def test_the_log_panel_asks_for_fields_of_the_log() -> None:
    (asked,) = queries("loki")
    assert asked.expr == '{service_name="liquid-train", model_name=~"$model"} | run_id=~"$run" | json'
    assert {"model_name", "run_id"} <= set(COMMON_FIELDS)


@pytest.mark.server("promtool")
def test_a_query_that_is_no_promql_is_found(tmp_path: Path, tool: Callable[..., str]) -> None:
    path = tmp_path / "queries.yml"
    rules = [{"record": "query:0", "expr": "sum by (le (up)"}]
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    with pytest.raises(AssertionError):
        tool("promtool", "check", "rules", path)
