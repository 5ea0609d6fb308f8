"""Panels: unit, description, data source, legend and thresholds are set for all of them here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    logs,
    loki,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from liquid_telemetry.signals import JOB_STATES, METRICS
from monitoring.grafana.generate.queries import Query

METRICS_SOURCE = models.DataSourceRef("prometheus", "${datasource}")
LOGS_SOURCE = models.DataSourceRef("loki", "${logs}")

_UNITS = {
    "": "short",
    "bytes": "bytes",
    "celsius": "celsius",
    "percent": "percent",
    "ratio": "percentunit",
    "seconds": "s",
    "unix seconds": "dateTimeAsIso",
    "watts": "watt",
}
_STATE_COLORS = ("blue", "green", "red", "text", "dark-red", "orange")

Steps = Sequence[tuple[float | None, str]]
CALM: Steps = ((None, "green"),)

_Panel = TypeVar("_Panel", bargauge.Panel, stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)


def upper(value: float, color: str = "red") -> Steps:
    """Thresholds for what must stay below a value."""
    return ((None, "green"), (value, color))


def lower(value: float) -> Steps:
    """Thresholds for what must reach a value."""
    return ((None, "red"), (value, "green"))


def graph(
    title: str,
    metrics: str | Sequence[str],
    *queries: Query,
    note: str = "",
    unit: str | None = None,
    steps: Steps = CALM,
    span: int = 8,
    stacked: bool = False,
    bars: bool = False,
) -> timeseries.Panel:
    """Lines over time.

    Args:
        title: What it shows.
        metrics: The metrics of the catalogue it is about; their help and unit are the panel's.
        *queries: One line or group of lines each.
        note: What the help does not say.
        unit: Where the metric's own is not that of the queries.
        steps: Thresholds; drawn as lines where there are several.
        span: Width, of 24.
        stacked: Whether values add up.
        bars: Bars in place of lines.
    """
    legend = common.VizLegendOptions().display_mode(shapes.LegendDisplayMode.TABLE).show_legend(True)
    legend.placement(shapes.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])
    panel = _dress(timeseries.Panel(), title, metrics, note, unit, steps, span).height(8).legend(legend)
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI))
    panel.line_width(1).fill_opacity(60 if stacked or bars else 5).show_points(shapes.VisibilityMode.AUTO)
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    if bars:
        panel.draw_style(shapes.GraphDrawStyle.BARS)
    if len(steps) > 1:
        style = common.GraphThresholdsStyleConfig().mode(shapes.GraphTresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    return panel.targets(_targets(queries))


def number(
    title: str,
    metrics: str | Sequence[str],
    query: Query,
    *,
    note: str = "",
    unit: str | None = None,
    steps: Steps = CALM,
    span: int = 3,
    states: bool = False,
) -> stat.Panel:
    """The last value of each series, large; ``states`` shows positions in ``JOB_STATES`` as words."""
    panel = _dress(stat.Panel(), title, metrics, note, unit, steps, span).height(4)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.color_mode(shapes.BigValueColorMode.VALUE).graph_mode(shapes.BigValueGraphMode.AREA)
    panel.text_mode(shapes.BigValueTextMode.AUTO)
    if states:
        panel.mappings([state_names()]).graph_mode(shapes.BigValueGraphMode.NONE)
    return panel.targets(_targets([query]))


def bar_list(
    title: str,
    metrics: str | Sequence[str],
    query: Query,
    *,
    note: str = "",
    steps: Steps = CALM,
    span: int = 8,
) -> bargauge.Panel:
    """A horizontal bar for each series, at its last value."""
    panel = _dress(bargauge.Panel(), title, metrics, note, None, steps, span).height(8).min(0)
    panel.orientation(shapes.VizOrientation.HORIZONTAL)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.targets(_targets([query], instant=True))


def timeline(
    title: str, metrics: str | Sequence[str], query: Query, *, note: str = ""
) -> statetimeline.Panel:
    """The state of each run over time."""
    panel = _dress(statetimeline.Panel(), title, metrics, note, None, CALM, 24).height(7)
    legend = common.VizLegendOptions().display_mode(shapes.LegendDisplayMode.LIST).show_legend(True)
    panel.legend(legend.placement(shapes.LegendPlacement.BOTTOM)).mappings([state_names()])
    panel.merge_values(True).show_value(shapes.VisibilityMode.AUTO)
    return panel.targets(_targets([query]))


def listing(
    title: str,
    metrics: str | Sequence[str],
    *queries: Query,
    labels: Mapping[str, str],
    overrides: Mapping[str, Mapping[str, object]],
    note: str = "",
    steps: Steps = CALM,
    span: int = 24,
    height: int = 9,
) -> table.Panel:
    """A table: a row for each set of labels, a column for each label and each query.

    Args:
        title: What it shows.
        metrics: The metrics of the catalogue it is about.
        *queries: A column of values each, named by its legend; an empty legend hides it.
        labels: The labels that are shown, in order, with the column's name.
        overrides: Properties by the column's name.
        note: What the help does not say.
        steps: Thresholds of values.
        span: Width, of 24.
        height: In grid lines.
    """
    panel = _dress(table.Panel(), title, metrics, note, None, steps, span).height(height)
    targets = _targets(queries, instant=True)
    for target in targets:
        target.format(PromQueryFormat.TABLE)
    values = {_value_field(queries, at): query.legend for at, query in enumerate(queries)}
    names = {**labels, **{field: name for field, name in values.items() if name}}
    hidden = {"Time": True, "__name__": True} | {field: True for field, name in values.items() if not name}
    order = {field: place for place, field in enumerate(names)}
    organize = {"excludeByName": hidden, "indexByName": order, "renameByName": names}
    if len(queries) > 1:
        panel.with_transformation(models.DataTransformerConfig("merge", options={}))
    panel.with_transformation(models.DataTransformerConfig("organize", options=organize))
    for name, properties in overrides.items():
        panel.override_by_name(
            name, [models.DynamicConfigValue(key, value) for key, value in properties.items()]
        )
    return panel.targets(targets)


def log_lines(title: str, description: str, expr: str) -> logs.Panel:
    """Lines of the log, the latest first."""
    panel = logs.Panel().title(title).description(description).datasource(LOGS_SOURCE).span(24).height(12)
    panel.unit("short").thresholds(_thresholds(CALM)).show_time(True).wrap_log_message(True)
    panel.enable_log_details(True).sort_order(shapes.LogsSortOrder.DESCENDING)
    query = loki.Dataquery().expr(expr).query_type("range").ref_id("A").max_lines(1000)
    return panel.with_target(query.datasource(LOGS_SOURCE).legend_format(""))


def state_names() -> models.ValueMap:
    """Positions in ``JOB_STATES`` as words."""
    results = {
        str(at): models.ValueMappingResult(text=name, color=color, index=at)
        for at, (name, color) in enumerate(zip(JOB_STATES, _STATE_COLORS, strict=True))
    }
    return models.ValueMap(results)


def link(title: str, url: str) -> dict[str, object]:
    """A link that opens beside the dashboard."""
    return {"title": title, "url": url, "targetBlank": True}


def unit_of(name: str) -> str:
    """Grafana's name for the unit of a metric of the catalogue."""
    return _UNITS[METRICS[name].unit]


def _dress(
    panel: _Panel,
    title: str,
    metrics: str | Sequence[str],
    note: str,
    unit: str | None,
    steps: Steps,
    span: int,
) -> _Panel:
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    texts = [METRICS[name].help for name in names] + ([note] if note else [])
    if not texts:
        raise ValueError(f"panel {title!r} has no description")
    panel.title(title).description(" ".join(texts)).datasource(METRICS_SOURCE).span(span)
    panel.unit(unit or (unit_of(names[0]) if names else "short")).thresholds(_thresholds(steps))
    return panel


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    made = [models.Threshold(value, color) for value, color in steps]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[Any]:
    made = []
    for at, query in enumerate(queries):
        target = (
            prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + at))
        )
        target.datasource(METRICS_SOURCE)
        made.append(target.instant() if instant else target.range().exemplar(query.exemplars))
    return made


def _value_field(queries: Sequence[Query], at: int) -> str:
    return "Value" if len(queries) == 1 else f"Value #{chr(ord('A') + at)}"
