"""Telemetry health: whether what the other dashboards show can be trusted."""

from __future__ import annotations

from monitoring.grafana.generate.board import HEALTH, Board, Row
from monitoring.grafana.generate.overview import alert_table
from monitoring.grafana.generate.panels import bar_list, graph, listing, lower, number, upper
from monitoring.grafana.generate.queries import Query, Scope, increase, rate, selector
from monitoring.grafana.generate.rules import recorded

_HERE = Scope()
_TARGET = {"job": "~$job", "instance": "~$instance"}
_HOST = selector("", **_TARGET)
_ALARM = upper(1)


def board() -> Board:
    """The dashboard."""
    return Board(
        HEALTH,
        "Whether the telemetry is complete: its own faults, what it dropped, how it is scraped, who evaluates it.",
        [
            Row("Now, and since the start of the time range", _numbers()),
            Row("Faults of the telemetry", [_faults("errors"), _faults("dropped"), _versions()]),
            Row("Scrapes", [_up(), _durations(), _samples()]),
            Row("Size", [_series(), _head(), _age()]),
            Row("Rules and notifications", [_rules(), _notifications(), alert_table()]),
        ],
    )


def _total(kind: str) -> Query:
    """Of the rule's sum: the series of a reason is born at 1, and has no increase then."""
    return Query(f"sum({increase(recorded(f'liquid_nn:telemetry_{kind}:sum') + _HOST)})", kind)


def _numbers() -> list[object]:
    up = selector("up", **_TARGET)
    firing = Query(f"count({selector('ALERTS', alertstate='firing')}) or vector(0)", "alerts")
    within = "Within the time range."
    return [
        number(
            "Exporters up",
            (),
            Query(f"sum({up})", "up"),
            note="Targets that the last scrape reached.",
            span=4,
        ),
        number(
            "Exporters down",
            (),
            Query(f"count({up}) - sum({up})", "down"),
            note="Targets that the last scrape did not reach. An exporter leaves when every run has ended.",
            steps=upper(1, "orange"),
            span=4,
        ),
        number("Errors", "telemetry_errors_total", _total("errors"), note=within, steps=_ALARM, span=4),
        number("Dropped", "telemetry_dropped_total", _total("dropped"), note=within, steps=_ALARM, span=4),
        number(
            "Age of the last scrape",
            (),
            Query(f"max(time() - timestamp({up}))", "age"),
            note="Of the exporter that was scraped the longest ago.",
            unit="s",
            steps=upper(60),
            span=4,
        ),
        number("Alerts firing", (), firing, note="Alerts of any kind that fire now.", steps=_ALARM, span=4),
    ]


def _faults(kind: str) -> object:
    name = f"telemetry_{kind}_total"
    total = f"sum by (signal, reason) ({_HERE.series(name)})"
    return bar_list(
        {"errors": "Errors", "dropped": "Dropped"}[kind] + " by signal and reason",
        name,
        Query(total, "{{signal}} {{reason}}"),
        note="Since the counter began; zero means that all is well.",
        steps=_ALARM,
    )


def _versions() -> object:
    info = _HERE.series("training_info")
    return listing(
        "Versions",
        "training_info",
        Query(
            f"count by (version, lightning_version, torch_version) (last_over_time({info}[$__range]))", "Runs"
        ),
        note="How many runs of the time range had which.",
        labels={"version": "Liquid-train", "lightning_version": "Lightning", "torch_version": "Torch"},
        overrides={},
        span=8,
        height=8,
    )


def _up() -> object:
    return graph(
        "Reached",
        (),
        Query(selector("up", **_TARGET), "{{job}} {{instance}}"),
        note="1 when a scrape reached the exporter, 0 when not.",
        steps=lower(1),
    )


def _durations() -> object:
    return graph(
        "Duration of a scrape",
        (),
        Query(selector("scrape_duration_seconds", **_TARGET), "{{job}} {{instance}}"),
        note="Scrapes that take as long as the timeout, 4 s as shipped, are lost.",
        unit="s",
        steps=upper(4),
    )


def _samples() -> object:
    return graph(
        "Samples and new series of a scrape",
        (),
        Query(selector("scrape_samples_scraped", **_TARGET), "samples {{instance}}"),
        Query(selector("scrape_series_added", **_TARGET), "new series {{instance}}"),
        note="New series at every scrape mean a label without bound.",
    )


def _series() -> object:
    every = '{__name__=~"liquid_nn_.+", job=~"$job", instance=~"$instance"}'
    return bar_list(
        "Series by metric",
        (),
        Query(f"topk(15, count by (__name__) ({every}))", "{{__name__}}"),
        note="The fifteen metrics with the most series.",
    )


def _head() -> object:
    return graph(
        "Series in Prometheus",
        (),
        Query(selector("prometheus_tsdb_head_series"), "{{instance}}"),
        note="All that it keeps in memory, ours and others'.",
    )


def _age() -> object:
    progress = _HERE.series("training_last_progress_timestamp_seconds")
    return graph(
        "Delay from the run to Prometheus",
        "training_last_progress_timestamp_seconds",
        Query(f"timestamp({progress}) - {progress}", "{{model_name}} {{slot}} {{instance}}"),
        note="Here: how long before the scrape that was; a run publishes once a second, "
        "and what is longer is a long batch or a stall.",
        unit="s",
    )


def _rules() -> object:
    group = "{{rule_group}}"
    took, interval = (
        selector(f"prometheus_rule_group_{name}_seconds") for name in ("last_duration", "interval")
    )
    failures = rate(selector("prometheus_rule_evaluation_failures_total"))
    return graph(
        "Rule evaluation",
        (),
        Query(f"{took} / {interval}", f"share of the interval {group}"),
        Query(failures, f"failures a second {group}"),
        note="An evaluation that takes longer than its interval is skipped.",
        unit="percentunit",
        steps=upper(1),
    )


def _notifications() -> object:
    sent, failed = (selector(f"alertmanager_notifications_{kind}") for kind in ("total", "failed_total"))
    by = "sum by (integration)"
    return graph(
        "Notifications",
        (),
        Query(f"{by} ({sent}) > 0", "sent by {{integration}}"),
        Query(f"{by} ({failed}) and {by} ({sent}) > 0", "failed by {{integration}}"),
        note="Of Alertmanager, by the ways that it uses, since its start.",
    )
