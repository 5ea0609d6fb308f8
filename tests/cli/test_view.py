"""`liquid-train view`: the page on runs that are over."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from urllib.error import HTTPError

import browser
import pytest
import tiny
from servers import binary
from tiny import Tiny, TinyData, fit, trainer

from liquid_telemetry import Telemetry

VIEW = [sys.executable, "-m", "liquid_train", "view"]
pytestmark = [pytest.mark.filterwarnings(noise) for noise in tiny.LIGHTNING_NOISE]


class Failing(Tiny):
    def on_train_epoch_end(self):
        if self.current_epoch == 1:
            raise ValueError("wires crossed")


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Two runs: one completed, one failed."""
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    fit(Telemetry(metrics=False, model_name="A"), max_epochs=3)
    with pytest.raises(ValueError, match="wires crossed"):
        fit(Telemetry(metrics=False, model_name="B"), model=Failing())
    return tmp_path / "runs"


def run_of(archive, model):
    """The directory of a model's run."""
    (log,) = (log for log in archive.glob("*/events.jsonl") if f'"model_name": "{model}"' in log.read_text())
    return log.parent


@contextmanager
def viewing(*arguments, ended_by=signal.SIGINT):
    process = subprocess.Popen([*VIEW, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        yield re.search(r"http://\S+/", said)[0], said
        process.send_signal(ended_by)
        assert process.wait(20) == 128 + ended_by
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def test_runs_that_are_over(archive):
    before = {path: path.stat().st_mtime_ns for path in archive.rglob("*")}
    with viewing(archive) as (url, said):
        assert said.startswith(f"2 runs of {archive} at http://127.0.0.1:")
        overview = ask(f"{url}api/runs")
        by_model = {run["model"]: run for run in overview["runs"]}
        assert {name: (run["state"], run["reason"]) for name, run in by_model.items()} == {
            "A": ("completed", ""),
            "B": ("failed", "exception"),
        }
        detail = ask(f"{url}api/runs/{by_model['A']['run_id']}")
        epochs = [
            json.loads(line)
            for line in (archive / by_model["A"]["run_id"] / "events.jsonl").read_text().splitlines()
            if "training_epoch_completed" in line
        ]
        assert detail["points"]["columns"]["loss"][-1] == pytest.approx(epochs[-1]["loss"])
        assert [row["epoch"] for row in detail["epochs"]["rows"]] == [0, 1, 2]
        with pytest.raises(HTTPError, match="404"):
            ask(f"{url}api/runs/..%2F..%2Fetc")
    assert {path: path.stat().st_mtime_ns for path in archive.rglob("*")} == before


def test_sigterm_ends_it_too(archive):
    with viewing(archive, "--no-browser", ended_by=signal.SIGTERM):
        pass


def test_what_trains_nothing_just_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    trainer(Telemetry(metrics=False, model_name="A")).validate(Tiny(), TinyData(), verbose=False)
    (log,) = tmp_path.glob("runs/*/events.jsonl")
    pid = json.loads(log.with_name("telemetry.json").read_text())["pid"]
    log.with_name("telemetry.json").write_text(json.dumps({"pid": pid + 1_000_000}))
    failed = tmp_path / "runs" / "export"
    failed.mkdir()
    (failed / "telemetry.json").write_text("{}")
    (failed / "events.jsonl").write_text(
        '{"event": "model_deployment_started", "timestamp": "2026-01-01T00:00:00Z"}\n'
        '{"event": "model_deployment_failed", "error_type": "ExportError", "error_message": "numbers differ"}\n'
    )
    with viewing("runs") as (url, _):
        runs = {run["run_id"]: run for run in ask(f"{url}api/runs")["runs"]}
    assert runs[log.parent.name]["state"] == "ended"
    assert (runs["export"]["state"], runs["export"]["end"]) == ("failed", "ExportError: numbers differ")


def test_new_damaged_and_deleted_runs(archive):
    one, other = (run_of(archive, model) for model in "AB")
    with viewing(archive) as (url, _):
        (one / "telemetry.json").write_text("{")
        runs = {run["run_id"]: run for run in ask(f"{url}api/runs")["runs"]}
        assert runs.keys() == {one.name, other.name}
        assert (runs[one.name]["model"], runs[one.name]["trace_id"]) == ("A", None)
        (archive / "third").mkdir()
        (archive / "third" / "telemetry.json").write_text("{}")
        runs = {run["run_id"]: run for run in ask(f"{url}api/runs")["runs"]}
        assert runs.keys() == {one.name, other.name, "third"}
        assert (runs["third"]["model"], runs["third"]["state"]) == ("unknown", "unknown")
        for path in (archive / "third").iterdir():
            path.unlink()
        assert {run["run_id"] for run in ask(f"{url}api/runs")["runs"]} == {one.name, other.name}


def test_one_run_and_its_page_in_a_browser(archive):
    folder = run_of(archive, "B")
    with viewing(folder) as (url, said), browser.chromium(binary("chromium")) as visit:
        assert said.startswith("1 run of ")
        page = visit(url)
        page.until("document.querySelector('#state').textContent.startsWith('failed (exception)')")
        assert "wires crossed" in page.text("#state")
        assert page.text("#host") == str(folder)
        assert page.problems == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "view: DIR='nowhere': no such folder; name one that holds runs"),
        (["."], "view: DIR='.': no run in it; a run directory holds a telemetry.json"),
        (["--port", "99999"], "view: argument --port"),
        (["--colour"], "see liquid-train view --help"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, message, tmp_path):
    done = subprocess.run([*VIEW, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_taken_port_is_told(archive):
    with viewing(archive) as (url, _):
        port = url.rsplit(":", 1)[1].strip("/")
        done = subprocess.run([*VIEW, archive, "--port", port], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"view: cannot serve at 127.0.0.1:{port}: " in done.stderr


def test_help_teaches():
    done = subprocess.run(
        [*VIEW, "--help"], capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "100"}
    )
    assert done.returncode == 0
    assert "Tick several runs to compare them" in done.stdout
