"""From a run that forgets what it knew, and leaks, to whoever is told, with the files as they are shipped."""

from __future__ import annotations

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
from tiny import only_run, workplace

from liquid_telemetry.spool import ExporterAddress, exporter_address

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server("prometheus"),
    pytest.mark.server("prometheus-alertmanager"),
]
LEARNT = 60
MEMORY = 700_000_000
ALERTS = ("ModelAccuracyDegradation", "HighMemoryUsage")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[ExporterAddress]:
    """Of the exporter beside a fit that goes wrong from an epoch on."""
    with workplace(tmp_path, exporter=True), (tmp_path / "fit.log").open("wb") as log:
        command = [sys.executable, str(Path(__file__).with_name("degrading.py")), str(LEARNT)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            found = eventually(lambda: exporter_address(tmp_path / "spool"), 60)
            assert found is not None
            yield found
        finally:
            process.kill()
            process.wait()
            left = exporter_address(tmp_path / "spool")
            if left is not None:
                os.kill(left.pid, signal.SIGTERM)


def _firing(server: Prometheus, name: str) -> dict[Any, float]:
    return server.query(f'ALERTS{{alertname="{name}",alertstate="firing"}}')


def test_accuracy_that_falls_and_memory_that_grows_are_told(
    tmp_path: Path, alertmanager: Alertmanager, address: ExporterAddress
) -> None:
    spools, less = [tmp_path / "spool"], {"memory_bytes": MEMORY}
    with shipped_prometheus(
        tmp_path / "prometheus", address.port, alertmanager, spools=spools, patience="2s", thresholds=less
    ) as server:
        best = 'max_over_time(liquid_nn_model_accuracy{dataset="val"}[10m])'
        eventually(lambda: any(value == 1 for value in server.query(best).values()), 60)
        assert not any(_firing(server, name) for name in ALERTS)
        eventually(lambda: all(_firing(server, name) for name in ALERTS), 90)
        (labels,) = _firing(server, ALERTS[0])
        assert (dict(labels)["model_name"], dict(labels)["dataset"]) == ("Degrading", "val")
        assert dict(labels)["run_id"] == only_run().run_id
        eventually(lambda: {alert["labels"]["alertname"] for alert in alertmanager.alerts()} >= {*ALERTS})
