"""A real fit that hangs, and the exporter that sees it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from servers import eventually

PATIENCE = 0.5
STEP = 'stalling.py", line'


class Fit:
    """A training process, and what it leaves."""

    def __init__(self, folder, how):
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, Path(__file__).with_name("stalling.py"), how]
        with (folder / "fit.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    def events(self, *names):
        logs = list(self.folder.glob("runs/*/events.jsonl"))
        lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        return [line for line in lines if line["event"].removeprefix("training_") in names]

    def go_on(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.close()

    def end(self):
        assert self.process.wait(60) == 0, (self.folder / "fit.log").read_text()

    def close(self):
        workers = psutil.Process(self.process.pid).children()
        self.process.kill()  # first: it would tell of a worker that is killed
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        self.process.wait()


@pytest.fixture
def fit(tmp_path, exporter, monkeypatch):
    """Start a fit, and with it an exporter that soon loses patience."""
    monkeypatch.setenv("LIQUID_TELEMETRY_STALL", str(PATIENCE))
    started = []

    def start(how):
        started.append(Fit(tmp_path, how))
        address = eventually(lambda: exporter.address, 60)
        exporter.pids.add(address.pid)
        return started[-1]

    yield start
    for one in started:
        one.process.stdin.close()
        if one.process.poll() is None:
            one.close()


def states(exporter):
    """The states that the one run is in."""
    shown = exporter.scrape().get("training_job_state", {})
    return [dict(labels)["state"] for labels, value in shown.items() if value]


def wait_for_stall(exporter):
    eventually(lambda: states(exporter) == ["stalled"], 60)


@pytest.mark.parametrize(
    ("how", "state"), [("hangs_in_python", None), ("hangs_with_the_lock_of_the_interpreter", "sleeping")]
)
def test_a_step_that_hangs_and_goes_on(fit, exporter, how, state):
    run = fit(how)
    wait_for_stall(exporter)
    (stalled,) = eventually(lambda: run.events("stalled"))
    status, health = exporter.json("/health")
    assert (status, health["status"]) == (503, "degraded")
    assert health["reason"].startswith("training: stalled: no progress for ")
    assert "in the phase batch after epoch 0, batch 0" in health["reason"]
    assert health["components"]["training"]["state"] == "stalled"

    assert (stalled["phase"], stalled["epoch"], stalled["batch"]) == ("batch", 0, 0)
    assert (stalled["stage"], stalled["rank"], stalled["pid"]) == ("train", 0, run.process.pid)
    assert stalled["seconds_without_progress"] > stalled["expected_seconds"] >= 1 + PATIENCE
    assert stalled["stacks_missing"] is None
    assert state is None or stalled["process_state"] == state
    lines = stalled["stacks"].splitlines()
    (step,) = (number for number, line in enumerate(lines) if line.endswith(f" in {how}"))
    assert lines[step + 1].endswith(" in training_step")
    assert STEP in lines[step]

    run.go_on()
    run.end()
    eventually(lambda: states(exporter) == ["completed"])
    (recovered,) = eventually(lambda: run.events("recovered"))
    assert recovered["seconds_without_progress"] >= stalled["seconds_without_progress"]
    told = [
        event["event"].removeprefix("training_") for event in run.events("stalled", "completed", "failed")
    ]
    assert told == ["stalled", "completed"]
    assert exporter.total("Hangs", "failed/stalled") == 0


@pytest.mark.slow
def test_a_rank_that_hangs_while_another_waits_for_it(fit, exporter):
    run = fit("hangs_while_another_rank_waits")
    wait_for_stall(exporter)
    (stalled,) = eventually(lambda: run.events("stalled"))
    assert stalled["rank"] == 0
    waits, hangs = stalled["stacks"].removeprefix("Rank 0:\n").split("\n\nRank 1:\n")
    assert " in backward" in waits
    assert "hangs_while_another_rank_waits" not in waits
    assert " in hangs_while_another_rank_waits" in hangs
    (run.folder / "go-on").touch()
    run.end()
    assert len(eventually(lambda: run.events("recovered"))) == 1
    eventually(lambda: states(exporter) == ["completed"])


def test_a_stopped_process(fit, exporter):
    run = fit("hangs_in_python")
    eventually(lambda: run.events("started"), 60)
    run.process.send_signal(signal.SIGSTOP)
    wait_for_stall(exporter)
    (stalled,) = eventually(lambda: run.events("stalled"))
    assert (stalled["stacks"], stalled["stacks_missing"]) == (None, "the process is stopped by a signal")
    assert stalled["process_state"] == "stopped by a signal"
    run.go_on()
    run.process.send_signal(signal.SIGCONT)
    run.end()
    assert len(eventually(lambda: run.events("recovered"))) == 1
    assert [event["event"] for event in run.events("completed", "failed")] == ["training_completed"]


def test_one_that_is_killed_while_stalled(fit, exporter):
    run = fit("hangs_in_python")
    wait_for_stall(exporter)
    eventually(lambda: run.events("stalled"))
    run.close()
    (failed,) = eventually(lambda: run.events("failed"))
    assert (failed["reason"], failed["known_by"]) == ("stalled", "stall")
    assert (failed["signal_name"], failed["phase"]) == ("SIGKILL", "batch")
    eventually(lambda: states(exporter) == ["failed"])
    assert exporter.total("Hangs", "failed/stalled") == 1
    assert exporter.jobs("failed", "Hangs", "stalled") == 1
    assert sum(total for (total, _) in exporter.counters["totals"]["Hangs"].values()) == 2  # it also started
    told = [event["event"] for event in run.events("stalled", "recovered", "failed")]
    assert told == ["training_stalled", "training_failed"]
