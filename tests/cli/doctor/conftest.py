import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
from servers import eventually, free_port, prometheus

from liquid_telemetry.spool import is_locked, start_exporter, wait_exporter
from liquid_train.__main__ import main
from liquid_train.doctor.examine import DEFAULTS

__all__ = ["prometheus"]

ROOT = Path(__file__).parents[3]
TRAINER = ROOT / "tests" / "exporter" / "fake_trainer.py"
VARIABLES = (
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "GRAFANA_TOKEN",
)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A spool of one's own, and nothing at the usual addresses."""
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for name in DEFAULTS:
        monkeypatch.setitem(DEFAULTS, name, f"http://127.0.0.1:{free_port()}")
    return tmp_path


@pytest.fixture
def doctor(capsys):
    """Ask it; returns the exit code and the findings by area and check."""

    def ask(*options):
        code = main(["doctor", "--json", *options])
        said = json.loads(capsys.readouterr().out)
        statuses = [found["status"] for found in said["findings"]]
        assert said["problems"] == statuses.count("problem")
        assert said["warnings"] == statuses.count("warning")
        return code, {(found["area"], found["check"]): found for found in said["findings"]}

    return ask


@pytest.fixture
def read():
    """What a person sees, from a process of its own."""

    def ask(*options):
        done = subprocess.run(
            [sys.executable, "-m", "liquid_train", "doctor", *options],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "callbacks")])},
        )
        assert done.stderr == ""
        return done.stdout

    return ask


@pytest.fixture
def exporter(alone, monkeypatch):
    """The exporter of this spool, at a free port, with a live run."""
    monkeypatch.setenv("LIQUID_TELEMETRY_LINGER", "0")
    spool = alone / "spool"
    spool.mkdir(mode=0o700)
    record = {"run_id": "r1", "model_name": "M", "status": "running"}
    trainer = subprocess.Popen(
        [sys.executable, TRAINER, json.dumps(record)], stdin=PIPE, stdout=PIPE, text=True
    )
    try:
        assert trainer.stdout.readline()
        start_exporter(spool, port=0)
        address = wait_exporter(spool, timeout=20)
        yield address
        os.kill(address.pid, signal.SIGTERM)
        eventually(lambda: not is_locked(spool / "exporter.lock"))
    finally:
        trainer.kill()
        trainer.communicate()
