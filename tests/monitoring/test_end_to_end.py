"""From a killed trainer to the pager, with the files as they are shipped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pager import Alertmanager, shipped_prometheus
from servers import Prometheus, eventually

from liquid_telemetry.spool import ExporterAddress, start_exporter, wait_exporter

pytestmark = [pytest.mark.server("prometheus"), pytest.mark.server("prometheus-alertmanager")]

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "tests" / "exporter" / "fake_trainer.py"


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(path))
    return path


@pytest.fixture
def trainer(spool: Path) -> Iterator[subprocess.Popen[str]]:
    record = json.dumps({"run_id": "run-1", "model_name": "CfC", "status": "running"})
    process = subprocess.Popen(
        [sys.executable, TRAINER, record], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def exporter(spool: Path, trainer: subprocess.Popen[str]) -> Iterator[ExporterAddress]:
    """It serves because a trainer lives; one without runs would leave at once."""
    start_exporter(spool, "127.0.0.1", 0)
    address = wait_exporter(spool, 10)
    assert address is not None, (spool / "exporter.stderr").read_text()
    yield address
    with contextlib.suppress(ProcessLookupError):
        os.kill(address.pid, signal.SIGKILL)


@pytest.fixture
def server(
    tmp_path: Path, spool: Path, exporter: ExporterAddress, alertmanager: Alertmanager
) -> Iterator[Prometheus]:
    """Prometheus with the shipped files; only addresses and intervals are others."""
    home = tmp_path / "prometheus"
    with shipped_prometheus(home, exporter.port, alertmanager, spools=[spool]) as server:
        yield server


def test_a_killed_trainer_is_one_page(
    server: Prometheus, trainer: subprocess.Popen[str], inbox: Any, alerts: dict[str, dict[str, Any]]
) -> None:
    targets = server.get("/api/v1/targets")["activeTargets"]
    assert sorted(one["scrapePool"] for one in targets) == ["alertmanager", "liquid-train", "prometheus"]
    eventually(lambda: server.query("liquid_nn_training_active"))
    trainer.kill()
    authorization, page = inbox.get("/pager")
    (alert,) = page["alerts"]
    assert authorization == "Bearer t0ken"
    assert alert["labels"]["alertname"] == "TrainingJobFailed"
    assert (alert["labels"]["model_name"], alert["labels"]["reason"]) == ("CfC", "killed")
    assert alert["annotations"]["summary"] == "Training of CfC failed: killed"
    assert alert["annotations"]["runbook_url"] == alerts["TrainingJobFailed"]["annotations"]["runbook_url"]
    loaded = server.get("/api/v1/rules")["groups"]
    assert {rule["health"] for group in loaded for rule in group["rules"]} == {"ok"}
