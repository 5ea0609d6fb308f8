"""Launchers as real processes, and the exporter as Prometheus and its counters show it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import eventually

from liquid_telemetry.spool import exporter_address, is_locked

LAUNCH = [sys.executable, "-m", "liquid_train", "run", "--port", "0"]
RUN = Path(__file__).with_name("fake_run.py")
SCRAPE = {"X-Prometheus-Scrape-Timeout-Seconds": "10"}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


class Exporter:
    """The exporter of the test's spool."""

    def __init__(self, spool):
        self.spool = spool

    @property
    def address(self):
        return exporter_address(self.spool)

    @property
    def counters(self):
        path = self.spool / "counters.json"
        return json.loads(path.read_bytes()) if path.exists() else {"totals": {}, "runs": {}}

    def ends(self):
        """True totals of every end that is not zero, as ``{(model, "failed/exited"): 1}``."""
        return {
            (model, key): total
            for model, table in self.counters["totals"].items()
            for key, (total, _) in table.items()
            if total and not key.startswith("started")
        }

    def texts(self):
        """How runs have ended, in words."""
        outcomes = [run["outcome"] for run in self.counters["runs"].values()]
        return [outcome["text"] for outcome in outcomes if outcome]

    def scrape(self):
        """Scrape as Prometheus does: ``{(name, model, reason): value}`` of totals of jobs."""
        request = urllib.request.Request(f"{self.address.url}/metrics", headers=SCRAPE)
        with urllib.request.urlopen(request, timeout=10) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        found = {}
        for sample in (sample for family in families for sample in family.samples):
            if sample.name.startswith("liquid_nn_training_"):
                name, labels = sample.name.removeprefix("liquid_nn_"), sample.labels
                found[name, labels["model_name"], labels.get("reason")] = sample.value
        return found

    def close(self):
        """Kill it, and one that had been started beside it and waited for its lock."""
        eventually(self._is_gone)

    def _is_gone(self):
        with suppress(AttributeError, ProcessLookupError):
            os.kill(self.address.pid, signal.SIGKILL)
        return not is_locked(self.spool / "exporter.lock")


@pytest.fixture(autouse=True)
def spool(tmp_path, monkeypatch):
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(path))
    monkeypatch.delenv("LIQUID_TELEMETRY_LAUNCHER", raising=False)
    for name, value in {"POLL": 0.1, "GRACE": 0.3, "HOLD": 60, "LEAVE": 60, "LINGER": 30}.items():
        monkeypatch.setenv(f"LIQUID_TELEMETRY_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def exporter(spool):
    client = Exporter(spool)
    yield client
    client.close()


@pytest.fixture
def start(exporter):
    """Start a launcher: ``start("python", "-c", …, linger=0)``; ``before`` is a command to start it with."""
    started = []

    def launch(*command, linger=0, name=None, before=(), **options):
        named = ["--model-name", name] if name else []
        line = [*before, *LAUNCH, "--linger", str(linger), *named, "--", *map(str, command)]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(line, text=True, **{**streams, **options}))
        return started[-1]

    yield launch
    for process in started:
        if process.returncode is None:
            # With what it has started, which would keep the pipes open.
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
        process.communicate()


@pytest.fixture
def finish(start):
    """Run a launcher to its end; returns exit code, stdout and stderr."""

    def run(*command, stdin=None, **options):
        process = start(*command, **options)
        out, error = process.communicate(stdin, timeout=60)
        return process.returncode, out, error

    return run


@pytest.fixture
def own_namespace():
    """The command that gives another a PID namespace of its own, where it is the first process."""
    program = shutil.which("unshare")
    for options in (["--pid", "--fork", "--mount-proc"], ["-r", "--pid", "--fork", "--mount-proc"]):
        if program and subprocess.run([program, *options, "true"], capture_output=True).returncode == 0:
            return [program, *options]
    pytest.skip("unshare cannot make a PID namespace here")


def python(code):
    return sys.executable, "-c", code


@pytest.fixture
def fake_run():
    """The command of a training process whose run is to do as told: ``fake_run("CfC", "os._exit(3)")``."""
    return lambda model, code: (sys.executable, str(RUN), model, code)
