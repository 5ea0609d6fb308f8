"""Training run: one model, from its loss to its log."""

from __future__ import annotations

from dataclasses import replace

from monitoring.grafana.generate.board import RUN, Board, Row, log_query
from monitoring.grafana.generate.panels import graph, listing, log_lines, lower, number, upper
from monitoring.grafana.generate.queries import IDENTITY, Query, Scope, of_runs, quantile, rate, state
from monitoring.grafana.generate.rules import threshold

_RUN = Scope("one")
_ALARM = upper(1)


def board() -> Board:
    """The dashboard."""
    return Board(
        RUN,
        "How one model trains: what it learns, where the time goes, what is kept of it, what the log says.",
        [
            Row("Where it is", [*_position(), _steps(), _constants()]),
            Row("What it learns", _learning()),
            Row("Where the time goes", [_phases(), _batches(), _epochs(), *_throughput(), _device()]),
            Row("The ranks", _ranks()),
            Row("What is kept", _checkpoints()),
            Row("What it says", [_log()]),
        ],
        one_run=True,
        since="now-1h",
    )


def _of(name: str, legend: str = "", **labels: str) -> Query:
    return _named(_RUN.series(name, **labels), legend)


def _named(expr: str, legend: str = "") -> Query:
    return Query(of_runs(expr, _RUN, run_id="~$run"), f"{legend} {{{{run_id}}}}".strip())


def _position() -> list[object]:
    loss = f"max without (epoch) ({_RUN.series('training_loss')})"
    silence = f"(time() - {_RUN.series('training_last_progress_timestamp_seconds')})"
    accuracy, wanted = _of("model_accuracy", dataset="val"), threshold("accuracy")
    return [
        number("State", "training_job_state", _named(state(_RUN)), states=True),
        number("Epoch", "training_epoch", _of("training_epoch")),
        number("Progress", "training_progress_ratio", _of("training_progress_ratio")),
        number("Time to the end", "training_eta_seconds", _of("training_eta_seconds")),
        number(
            "Since the last progress",
            "training_last_progress_timestamp_seconds",
            _named(silence),
            note="How long ago.",
            unit="s",
        ),
        number("Loss now", "training_loss", _named(loss)),
        number(
            "Accuracy now",
            "model_accuracy",
            accuracy,
            note=f"On validation data; the alert's threshold is {wanted:g}.",
            steps=lower(wanted),
        ),
        number(
            "Bad losses",
            "training_nonfinite_losses_total",
            _of("training_nonfinite_losses_total"),
            steps=_ALARM,
        ),
    ]


def _steps() -> object:
    return number("Steps", "training_global_step", _of("training_global_step"), span=4).height(5)


def _constants() -> object:
    names = ("model_name", "run_id", "accelerator", "strategy", "world_size")
    labels = (*names, "version", "lightning_version", "torch_version")
    info = _RUN.series("training_info", run_id="~$run")
    return listing(
        "Constants",
        "training_info",
        Query(f"max by ({', '.join(labels)}) (last_over_time({info}[$__range]))", ""),
        note="Of every run of the time range.",
        labels={label: label.replace("_", " ").capitalize() for label in labels},
        overrides={},
        span=20,
        height=5,
    )


def _learning() -> list[object]:
    loss = f"max without (epoch) ({_RUN.series('training_loss')})"
    wanted = threshold("accuracy")
    return [
        graph(
            "Loss",
            ("training_loss", "validation_loss"),
            _named(loss, "training"),
            _of("validation_loss", "validation"),
            span=12,
        ),
        graph(
            "Accuracy",
            "model_accuracy",
            _of("model_accuracy", "{{dataset}}"),
            note=f"The alert's threshold is {wanted:g}.",
            steps=lower(wanted),
            span=12,
        ),
        graph(
            "Learning rate",
            "training_learning_rate",
            _of("training_learning_rate", "group {{group}}"),
            span=6,
        ),
        graph("Gradient norm", "training_gradient_norm", _of("training_gradient_norm"), span=6),
        graph(
            "Bad losses over time",
            "training_nonfinite_losses_total",
            _of("training_nonfinite_losses_total"),
            steps=_ALARM,
            span=6,
        ),
        graph(
            "Logged values",
            "training_logged_metric",
            _of("training_logged_metric", "{{stage}} {{name}}"),
            note="At the end of each epoch.",
            span=6,
        ),
    ]


def _phases() -> object:
    return graph(
        "Phases",
        "training_phase_seconds_total",
        _named(rate(_RUN.series("training_phase_seconds_total")), "{{phase}}"),
        note="Here: the share of each.",
        unit="percentunit",
        stacked=True,
        span=12,
    )


def _batches() -> object:
    buckets = _RUN.series("training_batch_duration_seconds", suffix="_bucket", stage="train")
    half, most = (quantile(q, buckets, *IDENTITY) for q in (0.5, 0.95))
    return graph(
        "Batch duration",
        "training_batch_duration_seconds",
        _named(half, "half below"),
        replace(_named(most, "95 % below"), exemplars=True),
        note="Of training batches. A dot is one slow batch and opens its trace.",
        span=12,
    )


def _epochs() -> object:
    total, count = (
        _RUN.series("training_epoch_duration_seconds", suffix=suffix, stage="train")
        for suffix in ("_sum", "_count")
    )
    begun = _RUN.series("training_epoch_start_timestamp_seconds")
    return graph(
        "Epoch duration",
        ("training_epoch_duration_seconds", "training_epoch_start_timestamp_seconds"),
        _named(f"({total} / {count})", "mean"),
        _named(f"(time() - {begun})", "this epoch so far"),
        note="The mean is that of all epochs of the run.",
    )


def _throughput() -> list[object]:
    found: list[object] = []
    for kind in ("batches", "samples"):
        name = f"training_{kind}_total"
        query = _named(rate(_RUN.series(name)), "{{stage}}")
        found.append(graph(f"{kind.capitalize()} a second", name, query, note="Here: a second.", unit="cps"))
    return found


def _device() -> object:
    buckets = _RUN.series("training_device_phase_duration_seconds", suffix="_bucket")
    return graph(
        "Time on the GPU",
        "training_device_phase_duration_seconds",
        _named(quantile(0.95, buckets, "phase", *IDENTITY), "{{phase}}"),
        note="95 % of the batches take less.",
        span=24,
    )


def _ranks() -> list[object]:
    panels = {
        "Work of each rank": ("training_rank_work_seconds", "The slowest holds up the others."),
        "Wait for data of each rank": ("training_rank_data_wait_seconds", ""),
        "Batches of each rank": ("training_rank_batch_seconds", "Waiting for other ranks included."),
    }
    few = "Above a world size of 16: least, median and greatest of a host."
    return [
        graph(title, name, _of(name, "{{rank}}{{stat}}"), note=f"{note} {few}".strip())
        for title, (name, note) in panels.items()
    ]


def _checkpoints() -> list[object]:
    age = f"(time() - {_RUN.series('training_last_checkpoint_timestamp_seconds')})"
    total, count = (
        _RUN.series("training_checkpoint_duration_seconds", suffix=suffix) for suffix in ("_sum", "_count")
    )
    return [
        graph(
            "Age of the last checkpoint",
            "training_last_checkpoint_timestamp_seconds",
            _named(age),
            note="What a failure now would cost.",
            unit="s",
        ),
        graph("Checkpoints", "training_checkpoints_total", _of("training_checkpoints_total")),
        graph(
            "Checkpoint duration",
            "training_checkpoint_duration_seconds",
            _named(f"({total} / ({count} > 0))", "mean"),
            note="The mean over the run.",
        ),
    ]


def _log() -> object:
    return log_lines(
        "Log",
        "The event log of the chosen runs; a line's trace_id opens the trace.",
        log_query("$model", "$run"),
    )
