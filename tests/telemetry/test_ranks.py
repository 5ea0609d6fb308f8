"""Two ranks on gloo, and both names of Lightning, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import read_spans, runs

SCRIPT = Path(__file__).parent / "scripts" / "train.py"


class Training:
    """A training program that has ended."""

    def __init__(self, **options):
        process = subprocess.run(
            [sys.executable, str(SCRIPT), json.dumps(options)],
            capture_output=True,
            text=True,
            timeout=120,
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


def check_one_run(exporter):
    assert exporter.totals("Model") == {"started/": 1, "completed/": 1}
    (run,) = runs()
    files = {path.name for path in run.dir.iterdir()}
    assert files == {
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


@pytest.mark.parametrize(
    ("strategy", "fails", "rank"),
    [
        ("ddp", "training_step", 1),
        ("ddp", "data", -1),
        ("ddp_spawn", "training_step", 1),
        ("ddp_spawn", "data", -1),
    ],
)
def test_a_failure_is_counted_once(strategy, fails, rank, exporter):
    training = Training(strategy=strategy, fails=fails, rank=rank)
    assert training.code != 0
    assert "as asked" in training.output
    counted = exporter.totals("Model")
    assert counted.pop("started/") == 1
    assert list(counted.values()) == [1]
    assert next(iter(counted)).startswith("failed/")
    assert len(runs()) == 1
    if strategy == "ddp":
        assert list(counted) == ["failed/exception"]


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
