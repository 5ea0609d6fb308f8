"""Every panel shows something real: real runs beside a real Prometheus, and what each query says of them."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import tiny
from dashboards import DASHBOARDS, Asked, annotations, fill, queries, variables
from failures.stage import stage
from observed import BAD, BATCHES, CUDA_BYTES, EPOCHS, EVALUATED
from servers import eventually
from shown import NVML, Seen, Series, is_over, play

from liquid_telemetry.signals import JOB_STATES, PHASES

pytestmark = [pytest.mark.server("prometheus"), pytest.mark.server("prometheus-alertmanager")]

NO_FAULT_OF_THE_EXPORTER = 'status=~"5.."'
"""Nothing makes an exporter answer 5xx but a bug of its own; promtool's cases play the alert."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    home = tmp_path_factory.mktemp("panels")
    (home / "nvml").mkdir()
    (home / "nvml" / "pynvml.py").write_text(NVML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(home / "nvml"), prepend=":")
        with stage(home / "stage", shipped=False) as made:
            start, calls = play(made)
            eventually(lambda: is_over(made, calls.total()), 60)
            spool = made.spool
            (observed,) = (tiny.Written(path, spool) for path in (made.home / "observed" / "runs").iterdir())
            others = [
                tiny.Written(path, spool)
                for name in ("failing", "stopped")
                for path in (made.home / name / "runs").iterdir()
            ]
            yield Seen(made.prometheus, start, time.time(), observed, others, calls)


def _shows_something(series: Series) -> bool:
    return any(not math.isnan(value) for _, samples in series for _, value in samples)


@pytest.mark.parametrize("asked", list(queries()), ids=str)
def test_every_query_of_every_panel_has_data(seen: Seen, asked: Asked) -> None:
    assert _shows_something(seen.ask(asked))


@pytest.mark.parametrize("asked", [one for one in queries() if one.panel["type"] == "table"], ids=str)
def test_a_table_names_every_column(seen: Seen, asked: Asked) -> None:
    named = asked.panel["transformations"][-1]["options"]["renameByName"]
    for labels, _ in seen.ask(asked):
        assert labels.keys() <= named.keys()


@pytest.mark.parametrize(
    ("name", "annotation"),
    [pytest.param(name, one, id=f"{name}/{one['name']}") for name, one in annotations()],
)
def test_every_annotation_has_data(seen: Seen, name: str, annotation: dict[str, Any]) -> None:
    assert _shows_something(seen.over_time(fill(annotation["target"]["expr"])))


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_every_variable_has_a_choice(seen: Seen, name: str) -> None:
    for variable in variables(DASHBOARDS[name]).values():
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert asked is not None
            matched = {"match[]": fill(asked[1], model="Broken"), "start": seen.start, "end": seen.end}
            assert seen.prometheus.get(f"/api/v1/label/{asked[2]}/values", **matched), variable["name"]


def _selectors(expr: str) -> Iterator[str]:
    yield from (found[0] for found in re.finditer(r"liquid_nn[_:][\w:]+(?:\{[^}]*\})?", expr))


def test_every_series_that_an_alert_reads_is_there(seen: Seen, rules: list[dict[str, Any]]) -> None:
    window = f"{math.ceil(seen.end - seen.start)}s"
    read = {selector for rule in rules for selector in _selectors(rule["expr"])}
    missing = {one for one in read if not seen.at_end(f"last_over_time({one}[{window}])")}
    assert len(missing) == 1
    assert all(NO_FAULT_OF_THE_EXPORTER in one for one in missing)


def test_the_alerts_that_fire_are_those_of_what_happened(seen: Seen, alerts: dict[str, Any]) -> None:
    true = {name for name, alert in alerts.items() if seen.at_end(alert["expr"])}
    assert true == {"TrainingJobFailed", "TrainingJobInterrupted", "TrainingLossNotFinite"}
    for dashboard in ("training-overview", "telemetry-health"):
        assert seen.by("alertname", dashboard, "Firing alerts").keys() == true
        assert seen.values(dashboard, "Alerts firing")[-1] == len(seen.at_end('ALERTS{alertstate="firing"}'))


def test_jobs_are_those_that_were_started(seen: Seen) -> None:
    numbers = {
        title: seen.values("training-overview", title)[-1]
        for title in ("Started", "Completed", "Interrupted", "Failed", "Training now", "Stalled now")
    }
    assert numbers == {
        "Started": 3,
        "Completed": 1,
        "Interrupted": 1,
        "Failed": 1,
        "Training now": 0,
        "Stalled now": 0,
    }
    reasons = seen.by("reason", "training-overview", "Failures by reason")
    assert {reason: count for reason, count in reasons.items() if count} == {"exception": 1}
    told = [
        labels["reason"]
        for ref in "AB"
        for labels, _ in seen.panel("training-overview", "Failures and interruptions", ref)
    ]
    assert told == ["exception", "terminated"]
    assert max(seen.values("training-overview", "Training now")) >= 2


def test_the_table_of_runs_has_how_each_ended(seen: Seen) -> None:
    ends = {
        "training_completed": "completed",
        "training_failed": "failed",
        "training_interrupted": "interrupted",
    }
    expected = {
        run.run_id: next(ends[event["event"]] for event in run.events if event["event"] in ends)
        for run in (seen.observed, *seen.others)
    }
    found = seen.by("run_id", "training-overview", "Runs")
    assert {run: JOB_STATES[int(state)] for run, state in found.items()} == expected
    columns = {
        ref: seen.by("run_id", "training-overview", "Runs", ref)[seen.observed.run_id] for ref in "BCDF"
    }
    last = seen.observed.events_named("training_epoch_completed")[-1]
    assert columns == {"B": last["epoch"], "C": 1, "D": 0, "F": last["val_accuracy"]}
    slots = [labels.get("slot", "0") for labels, _ in seen.panel("training-overview", "Runs")]
    assert sorted(slots) == ["0", "0", "1"]
    states = seen.panel("training-overview", "State of each run")
    assert {JOB_STATES[int(value)] for _, samples in states for _, value in samples} >= {
        "running",
        *expected.values(),
    }


def test_loss_is_that_of_batches_and_epochs(seen: Seen) -> None:
    traced = {_loss(span) for span in seen.observed.spans_named("train batch")}
    epochs = seen.observed.events_named("training_epoch_completed")
    shown = {value for value in seen.values("training-run", "Loss") if not math.isnan(value)}
    assert shown <= traced
    assert len(shown) >= EPOCHS
    assert seen.values("training-run", "Loss now")[-1] == _loss(seen.observed.spans_named("train batch")[-1])
    validated = seen.values("training-run", "Loss", "B")
    assert set(validated) <= {epoch["val_loss"] for epoch in epochs}
    assert validated[-1] == epochs[-1]["val_loss"]
    assert seen.values("training-run", "Bad losses")[-1] == BAD
    bad = [span for span in seen.observed.spans_named("train batch") if math.isnan(_loss(span))]
    assert len(bad) == BAD == seen.values("training-overview", "Bad losses")[-1]
    assert sum(event["count"] for event in seen.observed.events_named("training_nonfinite_loss")) == BAD


def test_accuracy_learning_rate_and_logged_values_are_those_of_the_log(seen: Seen) -> None:
    epochs = seen.observed.events_named("training_epoch_completed")
    (tested,) = (e for e in seen.observed.events_named("validation_completed") if e["stage"] == "test")
    expected = {
        "train": epochs[-1]["accuracy"],
        "val": epochs[-1]["val_accuracy"],
        "test": tested["accuracy"],
    }
    assert seen.by("dataset", "training-run", "Accuracy") == expected
    assert seen.values("inference-and-api", "Model accuracy", dataset="test")[-1] == tested["accuracy"]
    assert seen.values("training-run", "Accuracy now")[-1] == epochs[-1]["val_accuracy"]
    rates = seen.values("training-run", "Learning rate")
    assert set(rates) <= {0.1 * 0.5**epoch for epoch in range(EPOCHS + 1)}
    assert len(set(rates)) >= 3
    logged = seen.values("training-run", "Logged values", name="val_loss", stage="validation")
    assert logged[-1] == epochs[-1]["val_loss"]


def test_epochs_batches_and_checkpoints_are_those_of_the_log(seen: Seen) -> None:
    epochs = seen.observed.events_named("training_epoch_completed")
    assert set(seen.values("training-run", "Epoch")) == set(range(EPOCHS))
    assert seen.values("training-run", "Steps")[-1] == epochs[-1]["global_step"]
    assert seen.values("training-run", "Progress")[-1] == 1
    mean = sum(epoch["duration_seconds"] for epoch in epochs) / len(epochs)
    assert seen.values("training-run", "Epoch duration")[-1] == pytest.approx(mean)
    saved = seen.observed.events_named("checkpoint_saved")
    assert seen.values("training-run", "Checkpoints")[-1] == len(saved) == EPOCHS
    mean = sum(event["duration_seconds"] for event in saved) / len(saved)
    assert seen.values("training-run", "Checkpoint duration")[-1] == pytest.approx(mean)
    marks = seen.over_time(
        fill(dict(_annotations("training-run"))["Checkpoints"]["target"]["expr"], model="Observed")
    )
    times = sorted({value / 1000 for _, samples in marks for _, value in samples})
    logged = [_unix(event["timestamp"]) for event in saved]
    assert times[-1] == pytest.approx(logged[-1], abs=1)
    assert all(any(abs(time - one) < 1 for one in logged) for time in times)


def test_throughput_phases_and_batches_are_of_one_run(seen: Seen) -> None:
    batches = _by_time(seen.panel("training-run", "Batches a second"), "train")
    samples = _by_time(seen.panel("training-run", "Samples a second"), "train")
    assert batches.keys() == samples.keys()
    assert samples == pytest.approx({time: 4 * rate for time, rate in batches.items()})
    (completed,) = seen.observed.events_named("training_completed")
    assert completed["batches"] == EPOCHS * BATCHES
    shares = seen.panel("training-run", "Phases")
    assert {labels["phase"] for labels, _ in shares} == set(PHASES)
    greatest = max(shares, key=lambda one: sum(value for _, value in one[1]))[0]["phase"]
    assert greatest == max(completed["phases"], key=completed["phases"].get).removesuffix("_wait")
    half = [value for value in seen.values("training-run", "Batch duration") if not math.isnan(value)]
    assert all(0.025 <= value <= 1 for value in half), "batches take 40 ms and more"
    gpu = seen.by("phase", "training-run", "Time on the GPU")
    assert gpu.keys() == {"forward", "backward", "optimizer"}


def test_a_dot_opens_the_trace_of_a_batch(seen: Seen) -> None:
    (asked,) = (asked for asked in queries() if asked.target.get("exemplar"))
    window = {"start": seen.start, "end": seen.end}
    found = seen.prometheus.get("/api/v1/query_exemplars", query=asked.filled(model="Observed"), **window)
    dots = [one["labels"] for series in found for one in series["exemplars"]]
    spans = {(span["traceId"], span["spanId"]) for span in seen.observed.spans_named("train batch")}
    assert dots
    assert {(dot["trace_id"], dot["span_id"]) for dot in dots} <= spans


def test_inference_is_that_of_the_log(seen: Seen) -> None:
    evaluated = seen.observed.events_named("validation_completed")
    batches = sum(event["batches"] for event in evaluated)
    assert batches == (EPOCHS + 3) * EVALUATED
    rates = seen.by("model_type", "inference-and-api", "Request rate")
    assert rates.keys() >= {"Observed"}
    total = 'max_over_time(liquid_nn_inference_requests_total{model_type="Observed", device="cpu"}[1h])'
    ((_, ((_, counted),)),) = seen.at_end(total)
    assert counted == batches
    requests = seen.values("inference-and-api", "Requests")[-1]
    (everything,) = seen.at_end("liquid_nn_inference_duration_seconds_count")
    assert requests == everything[1][0][1] >= batches
    for title in ("Half of the requests take less than", "95 % of the requests take less than"):
        shown = [value for value in seen.values("inference-and-api", title) if not math.isnan(value)]
        assert max(shown) > 0.01, "batches take 40 ms and more"


def test_calls_are_those_that_were_made(seen: Seen) -> None:
    counted = {
        labels["endpoint"]: samples[0][1]
        for labels, samples in seen.at_end(
            'sum by (endpoint) (liquid_nn_api_calls_total{endpoint=~"/|other"})'
        )
    }
    assert counted == {"/": seen.calls["/"], "other": seen.calls["/nothing-here"]}
    refused = seen.panel("inference-and-api", "Calls that fail", "B")
    assert {labels["endpoint"]: {value for _, value in samples} for labels, samples in refused} == {
        "/": {0},
        "other": {1},
    }
    assert {
        value for _, samples in seen.panel("inference-and-api", "Calls that fail") for _, value in samples
    } == {0}
    assert "/metrics" in seen.by("endpoint", "inference-and-api", "Probes and scrapes")


def test_the_host_is_this_one(seen: Seen) -> None:
    shown = seen.panel("inference-and-api", "Memory")
    memory = {labels["component"]: max(value for _, value in samples) for labels, samples in shown}
    assert {name: memory[name] for name in CUDA_BYTES} == CUDA_BYTES
    assert memory["process"] > 1e8, "torch alone is larger"
    assert memory["system"] > memory["process"]
    for title, value in {"GPU use": 87, "GPU temperature": 61, "GPU power": 312.5}.items():
        assert set(seen.values("inference-and-api", title)) == {value}


def test_the_telemetry_is_well(seen: Seen) -> None:
    numbers = {
        title: seen.values("telemetry-health", title)[-1] for title in ("Exporters up", "Errors", "Dropped")
    }
    assert numbers == {"Exporters up": 3, "Errors": 0, "Dropped": 0}
    for title in ("Errors by signal and reason", "Dropped by signal and reason"):
        assert {value for _, samples in seen.panel("telemetry-health", title) for _, value in samples} == {0}
    (versions,) = seen.panel("telemetry-health", "Versions")
    assert versions[1][-1][1] == 3
    failed = [
        value for _, samples in seen.panel("telemetry-health", "Rule evaluation", "B") for _, value in samples
    ]
    assert set(failed) == {0}


def test_the_log_of_a_run_has_what_its_panel_filters_by(seen: Seen) -> None:
    lines = [json.loads(line) for line in (seen.observed.dir / "events.jsonl").read_text().splitlines()]
    assert {(line["model_name"], line["run_id"]) for line in lines} == {("Observed", seen.observed.run_id)}
    traces = {span["traceId"] for span in seen.observed.spans}
    assert {line["trace_id"] for line in lines if "trace_id" in line} <= traces


def _annotations(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((one["name"], one) for where, one in annotations() if where == name)


def _loss(span: dict[str, Any]) -> float:
    return float(span["attributes"]["liquid_train.loss"])


def _unix(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def _by_time(series: Series, stage: str) -> dict[float, float]:
    ((_, samples),) = (one for one in series if one[0]["stage"] == stage)
    return dict(samples)


def test_what_comes_after_training_is_shown(seen: Seen) -> None:
    deployed = {
        (labels["target_platform"], labels["status"]): samples[-1][1]
        for labels, samples in seen.panel("inference-and-api", "Deployments")
    }
    assert deployed == {
        (platform, status): count
        for platform in ("torch-export", "serve")
        for status, count in {"started": 1, "completed": 1, "failed": 0}.items()
    }
    assert 1 in seen.values("inference-and-api", "Models served", environment="staging")
    assert seen.values("inference-and-api", "Slower than the baseline")[-1] == 0
    assert seen.values("inference-and-api", "Slower than the baseline", model_name="LiquidClassifier")
