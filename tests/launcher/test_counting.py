"""What a command's end counts as: exactly one job, or none."""

import json
import sys
import textwrap
from pathlib import Path

import pytest
from servers import eventually

ENDS = [
    ("import no_such_module", "failed/exited", "exited with code 1 before it started a run"),
    ("x =", "failed/exited", "exited with code 1 before it started a run"),
    (
        "import argparse; argparse.ArgumentParser().parse_args(['--no'])",
        "failed/exited",
        "exited with code 2",
    ),
    ("import os; os._exit(9)", "failed/exited", "exited with code 9"),
    ("import os; os.kill(os.getpid(), 9)", "failed/killed", "killed by signal 9"),
    ("import os; os.abort()", "failed/crashed", "killed by signal 6"),
    ("import os, signal; os.kill(os.getpid(), 15)", "interrupted/terminated", "killed by signal 15"),
    ("raise KeyboardInterrupt", "interrupted/user", "killed by signal 2"),
]
NESTED = [
    *[sys.executable, "-m", "liquid_train", "run", "--port=0", "--linger=0", "--model-name=inner"],
    "--",
]


@pytest.mark.parametrize(("code", "key", "text"), ENDS)
def test_an_end_before_any_run_counts_by_how_it_was(finish, exporter, tmp_path, code, key, text):
    (tmp_path / "train.py").write_text(code)
    finish(sys.executable, "train.py", "--lr", "1")
    eventually(exporter.ends)
    assert exporter.ends() == {("train.py", key): 1}
    assert exporter.texts()[0].startswith(text)


def test_a_command_that_cannot_be_started_counts(finish, exporter):
    finish("no-such-command", name="night")
    eventually(exporter.ends)
    assert exporter.ends() == {("night", "failed/exited"): 1}
    assert exporter.texts() == ["no-such-command: command not found"]


def test_the_event_of_a_failure_before_any_run(finish, exporter, spool):
    finish("sh", "-c", "exit 3")
    eventually(exporter.ends)
    (log,) = Path("runs").glob("launch-*/events.jsonl")
    eventually(log.read_text)
    event = json.loads(log.read_text())
    assert (event["event"], event["reason"], event["exit_code"], event["model_name"]) == (
        "training_failed", "exited", 3, "sh",
    )  # fmt: skip
    assert event["error_message"] == "exited with code 3 before it started a run"
    manifest = json.loads((log.parent / "telemetry.json").read_text())
    assert (manifest["run_id"], manifest["events"]) == (log.parent.name, str(log.absolute()))
    assert manifest["spool"] == str(spool)


@pytest.mark.parametrize(
    ("code", "key", "kind", "message"),
    [
        ("import no_such_module", "exception", "ModuleNotFoundError", "No module named 'no_such_module'"),
        ("x =", "exception", "SyntaxError", "invalid syntax"),
        ("raise MemoryError('all of it')", "out_of_memory", "MemoryError", "all of it"),
        (
            "import sys; sys.exit('Traceback, no more')",
            "exited",
            None,
            "exited with code 1 before it started a run",
        ),
    ],
)
def test_an_exception_is_known_where_stderr_is_a_file(finish, exporter, tmp_path, code, key, kind, message):
    """Slurm, nohup and systemd can send it to one; it is read, never taken over."""
    (tmp_path / "train.py").write_text(code)
    with (tmp_path / "stderr").open("w") as file:
        file.write("Traceback (most recent call last):\nOfAnother: run\n")
        file.flush()
        finish(sys.executable, "train.py", stderr=file)
    eventually(exporter.ends)
    assert exporter.ends() == {("train.py", f"failed/{key}"): 1}
    (log,) = Path("runs").glob("launch-*/events.jsonl")
    eventually(log.read_text)
    event = json.loads(log.read_text())
    assert (event["error_type"], event["error_message"]) == (kind, message)
    assert "OfAnother" not in (event["traceback"] or "")


def test_an_end_in_success_without_a_run_is_no_job(finish, exporter, spool):
    assert finish("true")[0] == 0
    eventually(lambda: not list((spool / "runs").iterdir()))
    assert exporter.ends() == {}


@pytest.mark.parametrize(
    ("code", "key", "exit_code"),
    [
        ("seat.update(status='completed')", "completed/", 0),
        ("seat.update(status='completed'); sys.exit(4)", "completed/", 4),
        ("seat.update(status='failed', reason='exception'); sys.exit(1)", "failed/exception", 1),
        ("os._exit(0)", "failed/exited", 0),
        ("os.kill(os.getpid(), 9)", "failed/killed", 137),
        ("os.abort()", "failed/crashed", 134),
    ],
)
def test_a_run_counts_once_and_the_launcher_does_not(finish, exporter, fake_run, spool, code, key, exit_code):
    assert finish(*fake_run("CfC", code))[0] == exit_code
    eventually(exporter.ends)
    eventually(lambda: not list((spool / "runs").glob("launch-*")))
    assert exporter.ends() == {("CfC", key): 1}


def test_a_run_that_has_gone_from_the_spool_was_a_run(start, exporter, fake_run, spool):
    """It ended and was scraped long before the command failed for another reason."""
    code = "seat.update(status='completed'); seat.release(); sys.stdin.read(); sys.exit(6)"
    process = start(*fake_run("CfC", code))
    eventually(lambda: exporter.address and exporter.scrape() and not list((spool / "runs").glob("run-*")))
    process.communicate(timeout=30)
    assert process.returncode == 6
    eventually(lambda: not list((spool / "runs").glob("launch-*")))
    assert exporter.ends() == {("CfC", "completed/"): 1}


def test_before_its_run_begins_a_command_shows_zeros_and_no_series_of_a_run(start, exporter):
    process = start("cat", name="CfC")
    eventually(lambda: exporter.address)
    found = exporter.scrape()
    assert found["training_jobs_failed_total", "CfC", "exited"] == 0
    assert not [name for name, *_ in found if not name.startswith("training_jobs_")]
    process.communicate(timeout=30)


def test_the_launchers_seat_takes_no_slot_of_its_model(start, exporter, fake_run):
    process = start(*fake_run("CfC", "sys.stdin.read(); seat.update(status='completed')"), name="CfC")
    eventually(lambda: exporter.address)
    eventually(lambda: ("training_active", "CfC", None) in exporter.scrape())
    assert list(exporter.counters["runs"].values())[-1]["slot"] == 0
    process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("inner", "expected", "exit_code"),
    [
        (("no-such-command",), {("inner", "failed/exited"): 1}, 127),
        (("true",), {}, 0),
        (("sh", "-c", "exit 3"), {("inner", "failed/exited"): 1}, 3),
    ],
)
def test_of_nested_launchers_the_inner_counts(finish, exporter, spool, inner, expected, exit_code):
    assert finish(*NESTED, *inner, name="outer")[0] == exit_code
    eventually(lambda: exporter.ends() == expected and not list((spool / "runs").glob("launch-*/started")))


def test_of_nested_launchers_with_a_run_the_run_counts(finish, exporter, fake_run):
    assert finish(*NESTED, *fake_run("CfC", "os._exit(5)"), name="outer")[0] == 5
    eventually(exporter.ends)
    assert exporter.ends() == {("CfC", "failed/exited"): 1}


def test_two_launchers_share_one_exporter(start, exporter):
    first = start("cat", name="A")
    address = eventually(lambda: exporter.address)
    second = start("sh", "-c", "exit 3", name="B")
    assert second.wait(30) == 3
    eventually(exporter.ends)
    assert exporter.address == address
    assert exporter.ends() == {("B", "failed/exited"): 1}
    first.communicate(timeout=30)


def test_the_launcher_tells_how_a_run_ended_that_the_exporter_cannot_see(
    finish, exporter, fake_run, own_namespace, start
):
    """A sidecar's exporter is in another PID namespace than the run."""
    holder = start("cat", name="sidecar")
    eventually(lambda: exporter.address)
    code, _, error = finish(*fake_run("CfC", "os.kill(os.getpid(), 9)"), before=own_namespace)
    assert code == 137, error
    eventually(exporter.ends)
    assert exporter.ends() == {("CfC", "failed/killed"): 1}
    holder.communicate(timeout=30)


def test_a_real_trainer_under_the_launcher(finish, exporter, tmp_path, monkeypatch):
    """Completed in `fit`, then a failure after it: one job, one end."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:{':'.join(sys.path)}")
    (tmp_path / "train.py").write_text(
        textwrap.dedent(
            """
            import warnings
            warnings.simplefilter("ignore")
            from tiny import fit, Tiny
            from liquid_telemetry import PrometheusMetrics
            class Broken(Tiny):
                def training_step(self, batch, batch_idx):
                    raise ZeroDivisionError("in a step")
            fit(PrometheusMetrics(port=0), max_epochs=1)
            fit(PrometheusMetrics(port=0), model=Broken(), max_epochs=1)
            """
        )
    )
    assert finish(sys.executable, "train.py")[0] == 1
    eventually(lambda: len(exporter.ends()) == 2)
    assert exporter.ends() == {("Tiny", "completed/"): 1, ("Broken", "failed/exception"): 1}
