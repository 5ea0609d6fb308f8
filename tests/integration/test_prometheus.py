"""A real Prometheus scrapes a real run of the default config, and agrees with its log and its trace."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from servers import eventually


def attribute(span: dict[str, Any], name: str) -> Any:
    (value,) = (item["value"] for item in span["attributes"] if item["key"] == f"liquid_train.{name}")
    ((kind, content),) = value.items()
    return int(content) if kind == "intValue" else content


def seconds(span: dict[str, Any]) -> float:
    return (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e9


@pytest.mark.server("prometheus")
def test_prometheus_log_and_trace_tell_the_same_run(
    fit: Callable[..., Any], prometheus: Callable[..., Any]
) -> None:
    run = fit("--trainer.max_epochs=250")  # long enough for several scrapes
    targets = run.spool / "targets.json"
    eventually(targets.exists, 60)
    server = prometheus(targets=targets, interval="500ms")
    run.wait()
    completed = "last_over_time(liquid_nn_training_jobs_completed_total[10m])"
    eventually(lambda: list(server.query(completed).values()) == [1], 60)
    eventually(lambda: not server.query("liquid_nn_training_loss"), 60)

    epochs = run.events("training_epoch_completed")
    assert [epoch["epoch"] for epoch in epochs] == list(
        range(run.events("training_started")[0]["max_epochs"])
    )
    _loss_is_one_unbroken_line(server, run)
    _accuracy_is_that_of_the_log(server, run, epochs)
    _durations_agree(server, run, epochs)
    _the_summary_says_what_the_test_measured(run)


def _loss_is_one_unbroken_line(server: Any, run: Any) -> None:
    raw = server.get("/api/v1/query", query="liquid_nn_training_loss[10m]")["result"]
    assert len(raw) >= 3, "the line must cross several epochs"
    traced = {(attribute(span, "epoch.index"), attribute(span, "loss")) for span in run.spans("train batch")}
    assert {(int(one["metric"]["epoch"]), float(loss)) for one in raw for _, loss in one["values"]} <= traced

    first = min(one["values"][0][0] for one in raw)
    ended = run.events("training_completed")[0]["timestamp"].replace("Z", "+00:00")
    window = {"start": first, "end": datetime.fromisoformat(ended).timestamp(), "step": 0.5}
    query = "max without (epoch) (liquid_nn_training_loss)"
    (line,) = server.get("/api/v1/query_range", query=query, **window)["result"]
    times = [time for time, _ in line["values"]]
    assert times[0] == pytest.approx(first, abs=0.01)
    assert times[-1] == pytest.approx(window["end"], abs=0.51)
    assert all(later - earlier == pytest.approx(0.5) for earlier, later in pairwise(times))


def _accuracy_is_that_of_the_log(server: Any, run: Any, epochs: list[dict[str, Any]]) -> None:
    (test,) = (event for event in run.events("validation_completed") if event["stage"] == "test")
    expected = {"train": epochs[-1]["accuracy"], "val": epochs[-1]["val_accuracy"], "test": test["accuracy"]}
    for dataset, accuracy in expected.items():
        (last,) = server.query(
            f'last_over_time(liquid_nn_model_accuracy{{dataset="{dataset}"}}[10m])'
        ).values()
        assert last == accuracy


def _durations_agree(server: Any, run: Any, epochs: list[dict[str, Any]]) -> None:
    logged = [epoch["duration_seconds"] for epoch in epochs]
    name = "liquid_nn_training_epoch_duration_seconds"
    (count,) = server.query(f'last_over_time({name}_count{{stage="train"}}[10m])').values()
    (total,) = server.query(f'last_over_time({name}_sum{{stage="train"}}[10m])').values()
    assert (count, total) == (len(epochs), pytest.approx(sum(logged)))
    spans = run.spans("train epoch")
    assert [seconds(span) for span in spans] == pytest.approx(logged, abs=1e-6)

    completed = run.events("training_completed")[0]
    phases = server.query("last_over_time(liquid_nn_training_phase_seconds_total[10m])")
    assert sum(phases.values()) == pytest.approx(completed["duration_seconds"], rel=1e-6)


def _the_summary_says_what_the_test_measured(run: Any) -> None:
    (test,) = (event for event in run.events("validation_completed") if event["stage"] == "test")
    reached = re.search(r"^test acc\s+([\d.]+)$", run.log.read_text(), re.MULTILINE)
    assert reached is not None
    assert float(reached[1]) == pytest.approx(test["accuracy"], abs=5e-5)
    assert str(run.run) in run.log.read_text()
