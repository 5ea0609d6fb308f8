"""Two ranks on gloo, and both names of Lightning, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from servers import eventually
from tiny import only_run, read_spans, runs

from liquid_telemetry.files import rank_name
from liquid_telemetry.observe.backend import SpanRef
from liquid_telemetry.observe.records import RunInfo
from liquid_telemetry.signals import PREFIX, RANK_METRICS
from liquid_telemetry.tracing.ranks import Ranks

SCRIPT = Path(__file__).parent / "scripts" / "train.py"


class Training:
    """A training program that has ended."""

    def __init__(self, **options):
        process = subprocess.run(
            [sys.executable, str(SCRIPT), json.dumps(options)],
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": "lo",
                "PYTHONWARNINGS": "ignore",
            },
        )
        self.code, self.output = process.returncode, process.stdout + process.stderr


def test_two_ranks_are_one_run_and_train_to_the_same_weights_as_without(exporter, tmp_path):
    found = []
    for callbacks in ("none", "all"):
        path = tmp_path / f"{callbacks}.pt"
        training = Training(strategy="ddp", callbacks=callbacks, weights=str(path), checkpoints=True)
        assert training.code == 0, training.output
        found.append(torch.load(path))
    (bare, bare_rng), (observed, observed_rng) = found
    assert all(torch.equal(bare[name], observed[name]) for name in bare)
    assert torch.equal(bare_rng, observed_rng)
    check_one_run(exporter)


def test_two_spawned_ranks_are_one_run(exporter):
    training = Training(strategy="ddp_spawn", checkpoints=True)
    assert training.code == 0, training.output
    check_one_run(exporter)


@pytest.mark.parametrize("rank", [0, 1])
def test_callbacks_on_one_rank_only_hold_up_nobody(exporter, rank):
    training = Training(strategy="ddp", callbacks="telemetry", only=rank, patience=0.5)
    assert training.code == 0, training.output
    (run,) = runs()
    assert sorted(path.name for path in run.dir.glob("events*")) == [rank_name("events", rank)]


def check_one_run(exporter):
    assert exporter.totals("Model") == {"started/": 1, "completed/": 1}
    (run,) = runs()
    files = {path.name for path in run.dir.iterdir()}
    assert files - {"history.jsonl"} == {
        "telemetry.json",
        "events.jsonl",
        "events.rank1.jsonl",
        "traces.jsonl",
        "traces.rank1.jsonl",
    }
    assert run.metrics["training_batches_total"][("stage", "train"),] == 6
    assert run.events[0]["world_size"] == 2
    check_one_trace(run)


def check_one_trace(run):
    other = read_spans(run.dir / "traces.rank1.jsonl")
    spans = run.spans + other
    known = {span["spanId"] for span in spans}
    assert {span["traceId"] for span in spans} == {run.manifest["trace_id"]}
    assert [span["name"] for span in spans if span.get("parentSpanId") not in known] == ["fit started"]
    assert {span["resource"]["liquid_train.rank"] for span in other} == {1}
    theirs, ours = (
        {
            span["attributes"]["liquid_train.epoch.index"]: span
            for span in part
            if span["name"] == "train epoch"
        }
        for part in (other, run.spans)
    )
    assert theirs.keys() == ours.keys() == {0, 1}
    for epoch, span in theirs.items():
        (link,) = span["links"]
        assert (link["traceId"], link["spanId"]) == (ours[epoch]["traceId"], ours[epoch]["spanId"])
    assert all("links" not in span for span in run.spans)


def test_epochs_beyond_the_trace_of_the_run_meet_in_traces_of_their_own():
    runs_of = [
        RunInfo("r", "M", Path(), "train", True, 0, "ab" * 16, "cd" * 8, rank=r, world_size=4) for r in (0, 3)
    ]
    root = SpanRef("ab" * 16, "cd" * 8)
    first, other = (Ranks(run) for run in runs_of)
    assert first.budget().limit == 500
    for epoch in range(4):  # 2 + 4 * (100 + 1 + 10 + 1) <= 450
        (mine, fits), (theirs, too) = (ranks.place(epoch, 100, root) for ranks in (first, other))
        assert fits is too is True
        assert (mine.parent, mine.links, theirs.parent) == (root, (), root)
        assert theirs.links == (SpanRef(root.trace_id, mine.span_id),)
        for ranks in (first, other):
            ranks.plan(10)
    seen = set()
    for epoch in (4, 5):
        (mine, fits), (theirs, too) = (ranks.place(epoch, 100, root) for ranks in (first, other))
        assert fits is too is False
        assert (mine.parent, mine.links, theirs.links) == (None, (root,), (root,))
        assert theirs.parent == SpanRef(mine.trace_id, mine.span_id)
        seen |= {mine.trace_id}
    assert len(seen | {root.trace_id}) == 3


def test_every_rank_tells_of_its_batches(exporter):
    training = Training(strategy="ddp", slow=1, callbacks="telemetry")
    assert training.code == 0, training.output
    (run,) = runs()
    found = [samples_of(run, rank) for rank in (0, 1)]
    assert found[1].keys() == {("Model", name, "1") for name in RANK_METRICS}
    assert {key for key in found[0] if key[1] in RANK_METRICS} == {
        ("Model", name, "0") for name in RANK_METRICS
    }
    works = [found[rank]["Model", "training_rank_work_seconds", str(rank)] for rank in (0, 1)]
    assert works[0] < 0.03 <= works[1]  # the slow rank works, the other waits for it in backward
    batches = [found[rank]["Model", "training_rank_batch_seconds", str(rank)] for rank in (0, 1)]
    assert min(batches) > works[0]


def samples_of(run, rank):
    text = (run.spool / "runs" / run.dir.name / f"{rank}.prom").read_text()
    return {
        (one.labels.get("model_name"), one.name.removeprefix(PREFIX), one.labels.get("rank")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("strategy", "fails", "rank"),
    [
        ("ddp", "training_step", 1),
        pytest.param("ddp", "data", -1, marks=SLOW),
        pytest.param("ddp_spawn", "training_step", 1, marks=SLOW),
        ("ddp_spawn", "data", -1),
    ],
)
def test_a_failure_is_counted_once(strategy, fails, rank, exporter, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_GRACE", "10")  # a parent may have to wait for the other rank
    training = Training(strategy=strategy, fails=fails, rank=rank)
    assert training.code != 0
    assert "as asked" in training.output
    counted = exporter.totals("Model")
    assert counted.pop("started/") == 1
    assert list(counted.values()) == [1]
    assert next(iter(counted)).startswith("failed/")
    assert len(runs()) == 1
    assert list(counted) == ["failed/exception"]
    found = eventually(lambda: told(runs()[0], "training_failed"))
    (failed, *_) = [event for event in found if event["rank"] == rank or rank == -1]
    assert "ValueError: as asked" in failed["traceback"]
    if fails != "data":  # the run of spawned processes begins after that
        assert (failed["error_type"], failed["error_message"]) == ("ValueError", "as asked")


def told(run, name):
    """Events of all ranks."""
    lines = [line for path in run.dir.glob("events*.jsonl") for line in path.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.mark.parametrize(
    ("strategy", "fails", "key", "signalled"),
    [
        ("ddp", "kill", "failed/killed", 9),
        pytest.param("ddp_spawn", "kill", "failed/killed", 9, marks=SLOW),
        pytest.param("ddp_spawn", "exit", "failed/exited", None, marks=SLOW),
        pytest.param("ddp", "segfault", "failed/crashed", 11, marks=SLOW),
        pytest.param("ddp_spawn", "segfault", "failed/crashed", 11, marks=SLOW),
        pytest.param("ddp", "exit", "failed/exited", None, marks=SLOW),
        pytest.param("ddp", "interrupt", "interrupted/user", None, marks=SLOW),
        pytest.param("ddp_spawn", "interrupt", "interrupted/user", None, marks=SLOW),
    ],
)
def test_a_rank_that_dies_decides(strategy, fails, key, signalled, exporter):
    training = Training(strategy=strategy, dies=fails, rank=1)
    counted = exporter.totals("Model")
    assert counted.pop("started/") == 1
    assert list(counted) == [key], training.output
    assert training.code != 0
    assert len(runs()) == 1


def test_an_exception_kept_from_us_is_told_when_the_process_ends(exporter):
    training = Training(devices=1, callbacks="greedy", fails="training_step")
    assert training.code == 1
    assert exporter.totals("Model") == {"started/": 1, "failed/exception": 1}
    (run,) = runs()
    (failed,) = run.events_named("training_failed")
    assert (failed["error_type"], failed["error_message"]) == ("RuntimeError", "mine")
    assert "ValueError: as asked" in failed["traceback"]
    assert run.spans[-1]["name"] == "fit"


def test_an_exception_that_nobody_tells_of_is_known_by_the_exit(exporter):
    training = Training(devices=1, callbacks="greedy", fails="training_step", swallow=5)
    assert training.code == 5
    assert exporter.totals("Model") == {"started/": 1, "failed/exited": 1}
    (failed,) = eventually(lambda: only_run().events_named("training_failed"))
    assert (failed["exit_code"], failed["known_by"]) == (5, "exit status")


def test_the_other_name_of_lightning(exporter):
    training = Training(package="pytorch_lightning", callbacks="all", devices=1)
    assert training.code == 0, training.output
    assert exporter.totals("Model") == {"started/": 1, "completed/": 1}
    (run,) = runs()
    assert [event["event"] for event in run.events] == [
        "training_started",
        *["validation_completed", "training_epoch_completed"] * 2,
        "training_completed",
    ]
