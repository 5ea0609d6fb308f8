"""What the dashboards share: variables, annotations, links, the grid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from liquid_telemetry.signals import METRICS as CATALOGUE
from liquid_telemetry.signals import NAMESPACE
from monitoring.grafana.generate.panels import METRICS_SOURCE
from monitoring.grafana.generate.queries import Scope, selector
from monitoring.grafana.generate.rules import runbooks

OVERVIEW, RUN, INFERENCE, HEALTH = (
    "liquid-train-overview",
    "liquid-train-run",
    "liquid-train-inference",
    "liquid-train-health",
)
TITLES = {
    OVERVIEW: "Training overview",
    RUN: "Training run",
    INFERENCE: "Inference and API",
    HEALTH: "Telemetry health",
}
SERVICE = "liquid-train"
"""``service.name`` of traces and logs."""

_TIME = "from=${__from}&to=${__to}"
_RUNS = Scope()


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it."""

    title: str
    panels: Sequence[Any]


@dataclass(frozen=True)
class Board:
    """A dashboard to be.

    Args:
        uid: One of this module's.
        description: What it answers.
        rows: From top to bottom.
        one_run: Whether it is about one model, and has variables for slot and run.
        since: Where its time range begins.
    """

    uid: str
    description: str
    rows: Sequence[Row] = field(repr=False)
    one_run: bool = False
    since: str = "now-6h"

    def build(self) -> models.Dashboard:
        """The dashboard, with ids that count from 1."""
        made = builders.Dashboard(TITLES[self.uid]).uid(self.uid).description(self.description)
        made.tags([SERVICE]).time(self.since, "now").refresh("10s").timezone("browser").editable()
        made.tooltip(models.DashboardCursorSync.CROSSHAIR)
        for variable in _variables(self.one_run):
            made.with_variable(variable)
        for uid in TITLES:
            if uid != self.uid:
                made.link(_link(TITLES[uid], f"/d/{uid}", "dashboard", keep=True))
        for title, url in _elsewhere(self.one_run).items():
            made.link(_link(title, url, "external link", keep=False))
        for row in self.rows:
            made.with_row(builders.Row(row.title))
            for panel in row.panels:
                made.with_panel(panel)
        dashboard = made.build()
        dashboard.annotations = models.AnnotationContainer(_annotations())
        for number, panel in enumerate(dashboard.panels or [], start=1):
            panel.id_val = number
        return dashboard


def run_url(uid: str, **variables: str) -> str:
    """A link to a dashboard that keeps data sources and time and sets variables."""
    kept = "".join(f"&var-{name}=${{{name}}}" for name in ("datasource", "logs", "traces"))
    given = "".join(f"&var-{name}={value}" for name, value in variables.items())
    return f"/d/{uid}?{_TIME}{kept}{given}"


def traces_url(**tags: str) -> str:
    """A search for traces in Explore, by attributes without their namespace."""
    wanted = " ".join(f'{NAMESPACE}{name.replace("_", ".")}="{value}"' for name, value in tags.items())
    query = {"refId": "A", "queryType": "search", "service": SERVICE, "tags": wanted, "limit": 20}
    return _explore("jaeger", "${traces}", query)


def logs_url(model: str, run: str) -> str:
    """Log lines of runs in Explore."""
    return _explore("loki", "${logs}", {"refId": "A", "queryType": "range", "expr": log_query(model, run)})


def log_query(model: str, run: str) -> str:
    """LogQL for the log lines of runs; what tells model and run is in labels and metadata, the line is the event."""
    return f'{{service_name="{SERVICE}", model_name=~"{model}"}} | run_id=~"{run}" | json'


def _explore(kind: str, source: str, query: dict[str, object]) -> str:
    time = {"from": "${__from}", "to": "${__to}"}
    asked = {**query, "datasource": {"type": kind, "uid": source}}
    panes = {"liquid": {"datasource": source, "queries": [asked], "range": time}}
    text = json.dumps(panes, separators=(",", ":"))
    return f"/explore?schemaVersion=1&orgId=1&panes={quote(text, safe='${}:,.')}"  # Grafana replaces ${...}


def _elsewhere(one_run: bool) -> dict[str, str]:
    return {
        "Traces": traces_url(model_name="${model}") if one_run else traces_url(),
        "Logs": logs_url("${model:pipe}", "${run:pipe}" if one_run else ".*"),
        "Runbooks": f"{runbooks()}/README.md",
    }


def _link(title: str, url: str, icon: str, *, keep: bool) -> builders.DashboardLink:
    made = builders.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url).icon(icon)
    return made.include_vars(keep).keep_time(keep).target_blank(not keep)


def _variables(one_run: bool) -> list[Any]:
    errors = CATALOGUE["telemetry_errors_total"].full_name  # there from the start, in every exposition
    info = Scope("none").series("training_info")
    of_model = _RUNS.series("training_info")
    made: list[Any] = [
        _source("datasource", "Prometheus", "prometheus"),
        _source("logs", "Loki", "loki"),
        _source("traces", "Jaeger", "jaeger"),
        _choice("job", "Job", errors, "job"),
        _choice("instance", "Instance", selector(errors, job="~$job"), "instance"),
        _choice("model", "Model", info, "model_name", several=not one_run),
    ]
    if one_run:
        made.append(_choice("slot", "Slot", of_model, "slot"))
        made.append(_choice("run", "Run", Scope("one").series("training_info"), "run_id"))
    return made


def _source(name: str, label: str, kind: str) -> builders.DatasourceVariable:
    current = models.VariableOption(text=label, value=kind)
    return builders.DatasourceVariable(name).label(label).type(kind).current(current)


def _choice(
    name: str, label: str, series: str, values: str, *, several: bool = True
) -> builders.QueryVariable:
    query: dict[str, object] = {"query": f"label_values({series}, {values})", "refId": name, "qryType": 5}
    made = builders.QueryVariable(name).label(label).query(query).datasource(METRICS_SOURCE)
    made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    if several:
        made.multi(True).include_all(True).all_value(".*")
        made.current(models.VariableOption(text="All", value="$__all"))
    return made


class _Annotation(models.AnnotationQuery):
    """An annotation by PromQL: the SDK knows neither its target nor its texts.

    Args:
        expr: PromQL.
        title: Of an event; names of labels in double braces.
        text: Likewise.
        tag: A label.
        at_value: Whether an event is at the series' value, in milliseconds, not where the sample is.
        **known: What the SDK knows.
    """

    def __init__(
        self, *, expr: str, title: str, text: str, tag: str, at_value: bool = False, **known: Any
    ) -> None:
        super().__init__(**known, datasource=METRICS_SOURCE, hide=False)
        target = {"expr": expr, "refId": "Anno", "interval": "10s", "range": True, "instant": False}
        self._texts = {"titleFormat": title, "textFormat": text, "tagKeys": tag, "useValueForTime": at_value}
        self._texts |= {"target": target}

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self._texts}


def _annotations() -> list[models.AnnotationQuery]:
    matchers = {"alertstate": "firing", "job": "~$job|", "instance": "~$instance|", "model_name": "~$model|"}
    checkpoint = _RUNS.series("training_last_checkpoint_timestamp_seconds")
    return [
        _Annotation(
            name="Firing alerts",
            icon_color="red",
            expr=selector("ALERTS", **matchers),
            title="{{alertname}}",
            text="{{model_name}} {{reason}} on {{instance}}",
            tag="severity",
        ),
        _Annotation(
            name="Checkpoints",
            icon_color="blue",
            expr=f"1000 * {checkpoint}",
            title="Checkpoint",
            text="{{model_name}} on {{instance}}",
            tag="model_name",
            at_value=True,
        ),
    ]
