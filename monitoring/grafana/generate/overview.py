"""Training overview: every run, how far it is, how it ended."""

from __future__ import annotations

from monitoring.grafana.generate.board import OVERVIEW, RUN, Board, Row, logs_url, run_url, traces_url
from monitoring.grafana.generate.panels import (
    bar_list,
    graph,
    link,
    listing,
    lower,
    number,
    state_names,
    timeline,
    unit_of,
    upper,
)
from monitoring.grafana.generate.queries import (
    IDENTITY,
    Query,
    Scope,
    increase,
    last,
    of_runs,
    rate,
    selector,
    state,
)
from monitoring.grafana.generate.rules import runbooks, threshold

_RUNS = Scope()
_LIVE = f"and on ({', '.join(IDENTITY)}) {_RUNS.series('training_active')} == 1"
_NAME = "{{model_name}} {{slot}} {{instance}}"
_ALARM = upper(1)


def board() -> Board:
    """The dashboard."""
    return Board(
        OVERVIEW,
        "Which runs there are, how far each is, which failed and why, and what is being alerted on.",
        [
            Row("Now, and since the start of the time range", _numbers()),
            Row("Each run", [_table(), _states()]),
            Row("Failures and alerts", [_reasons(), _failures(), alert_table()]),
            Row("How far", _progress()),
            Row("How well", [_loss(), _accuracy(), _throughput()]),
        ],
    )


def _total(name: str) -> Query:
    return Query(f"sum({increase(_RUNS.series(name))})", "runs")


def _numbers() -> list[object]:
    active = Query(f"sum({_RUNS.series('training_active')}) or vector(0)", "runs")
    stalled = Query(f"sum({_RUNS.series('training_job_state', state='stalled')}) or vector(0)", "runs")
    firing = Query(f"count({selector('ALERTS', alertstate='firing')}) or vector(0)", "alerts")
    bad = Query(f"sum({last(of_runs(_RUNS.series('training_nonfinite_losses_total'), _RUNS))})", "batches")
    within = "Within the time range."
    return [
        number("Training now", "training_active", active, note="Summed."),
        number(
            "Stalled now", "training_job_state", stalled, note="Here: how many are stalled.", steps=_ALARM
        ),
        number(
            "Alerts firing", (), firing, note="Alerts of any kind that fire now.", unit="short", steps=_ALARM
        ),
        number("Started", "training_jobs_started_total", _total("training_jobs_started_total"), note=within),
        number(
            "Completed", "training_jobs_completed_total", _total("training_jobs_completed_total"), note=within
        ),
        number(
            "Interrupted",
            "training_jobs_interrupted_total",
            _total("training_jobs_interrupted_total"),
            note=within,
            steps=upper(1, "orange"),
        ),
        number(
            "Failed",
            "training_jobs_failed_total",
            _total("training_jobs_failed_total"),
            note=within,
            steps=_ALARM,
        ),
        number("Bad losses", "training_nonfinite_losses_total", bad, note=within, steps=_ALARM),
    ]


def _column(expr: str, legend: str) -> Query:
    return Query(last(of_runs(expr, _RUNS)), legend)


def _table() -> object:
    accuracy = f"max without (dataset) ({_RUNS.series('model_accuracy', dataset='val')})"
    progress = _RUNS.series("training_last_progress_timestamp_seconds")
    run = {"model": "${__data.fields.Model}", "run": "${__data.fields.Run}"}
    return listing(
        "Runs",
        "training_info",
        _column(state(_RUNS), "State"),
        _column(_RUNS.series("training_epoch"), "Epoch"),
        _column(_RUNS.series("training_progress_ratio"), "Progress"),
        _column(_RUNS.series("training_eta_seconds"), "Time to the end"),
        _column(f"max without (epoch) ({_RUNS.series('training_loss')})", "Training loss"),
        _column(accuracy, "Validation accuracy"),
        _column(f"(1000 * {progress})", "Last progress"),
        note="One row a run: the last that is known of each run of the time range, ended ones included. "
        "A run's name opens its dashboard, its traces or its log.",
        labels={"model_name": "Model", "run_id": "Run", "slot": "Slot", "job": "Job", "instance": "Instance"},
        overrides={
            "State": {"mappings": [state_names()], "custom.cellOptions": {"type": "color-text"}},
            "Progress": {"unit": unit_of("training_progress_ratio"), "min": 0, "max": 1}
            | {"custom.cellOptions": {"type": "gauge", "mode": "basic"}},
            "Time to the end": {"unit": unit_of("training_eta_seconds")},
            "Validation accuracy": {"unit": unit_of("model_accuracy")},
            "Last progress": {"unit": "dateTimeFromNow"},
            "Run": {
                "links": [
                    link("Dashboard", run_url(RUN, **run)),
                    link("Traces", traces_url(run_id=run["run"])),
                    link("Log", logs_url(run["model"], run["run"])),
                ]
            },
        },
    )


def _states() -> object:
    return timeline("State of each run", "training_job_state", Query(state(_RUNS), _NAME))


def _reasons() -> object:
    failed = _RUNS.series("training_jobs_failed_total")
    return bar_list(
        "Failures by reason",
        "training_jobs_failed_total",
        Query(f"sum by (reason) ({increase(failed)})", "{{reason}}"),
        note="Within the time range.",
        steps=_ALARM,
    )


def _failures() -> object:
    by = "sum by (model_name, reason)"
    failed, interrupted = (_RUNS.series(f"training_jobs_{kind}_total") for kind in ("failed", "interrupted"))
    window = "[$__rate_interval]"
    return graph(
        "Failures and interruptions",
        ("training_jobs_failed_total", "training_jobs_interrupted_total"),
        Query(f"{by} (increase({failed}{window})) > 0", "{{model_name}} {{reason}}"),
        Query(f"{by} (increase({interrupted}{window})) > 0", "{{model_name}} {{reason}}"),
        note="When they were counted.",
        bars=True,
    )


def alert_table() -> object:
    """The alerts that fire, each with a link to its runbook."""
    labels = {"alertname": "Alert", "severity": "Severity", "model_name": "Model", "instance": "Instance"}
    runbook = link("Runbook", f"{runbooks()}/${{__data.fields.Alert}}.md")
    return listing(
        "Firing alerts",
        (),
        Query(f"max by ({', '.join(labels)}) ({selector('ALERTS', alertstate='firing')})", ""),
        note="Alerts that fire now; the name opens the runbook.",
        labels=labels,
        overrides={"Alert": {"links": [runbook]}},
        span=8,
        height=8,
    )


def _progress() -> list[object]:
    progress = _RUNS.series("training_last_progress_timestamp_seconds")
    return [
        graph("Progress", "training_progress_ratio", Query(_RUNS.series("training_progress_ratio"), _NAME)),
        graph(
            "Time to the planned end",
            "training_eta_seconds",
            Query(_RUNS.series("training_eta_seconds"), _NAME),
        ),
        graph(
            "Time since the last progress",
            "training_last_progress_timestamp_seconds",
            Query(f"time() - {progress} {_LIVE}", _NAME),
            note="Of live runs. What is too long depends on the run: the state says stalled when it is.",
            unit="s",
        ),
    ]


def _loss() -> object:
    loss = _RUNS.series("training_loss")
    return graph("Training loss", "training_loss", Query(f"max without (epoch) ({loss})", _NAME))


def _accuracy() -> object:
    accuracy = _RUNS.series("model_accuracy", dataset="val")
    wanted = threshold("accuracy")
    note = f"On validation data; below {wanted:g} after having been above it is an alert."
    return graph(
        "Validation accuracy", "model_accuracy", Query(accuracy, _NAME), note=note, steps=lower(wanted)
    )


def _throughput() -> object:
    samples = _RUNS.series("training_samples_total", stage="train")
    note = "Training samples a second."
    return graph("Throughput", "training_samples_total", Query(rate(samples), _NAME), note=note, unit="cps")
