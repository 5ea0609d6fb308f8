"""From a server that is out of memory to the pager, with the files as they are shipped."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from pager import Alertmanager, shipped_prometheus
from servers import eventually
from serving import asked, command
from tiny import LIGHTNING_NOISE, trainer
from torch.utils.data import DataLoader

from liquid_telemetry.spool import wait_exporter
from liquid_train.data.batch import Series, collate
from liquid_train.tasks import LiquidRegressor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server("prometheus"),
    pytest.mark.server("prometheus-alertmanager"),
    *(pytest.mark.filterwarnings(noise) for noise in LIGHTNING_NOISE),
]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path / "spool"))
    series = [Series(torch.randn(4, 1), torch.tensor(1.0)) for _ in range(4)]
    loader = DataLoader(series, batch_size=2, collate_fn=collate)
    made = trainer(max_epochs=1)
    options = {"backbone_units": 8}
    made.fit(LiquidRegressor(units=1024, cell_options=options, readout="mean", input_size=1), loader, loader)
    made.save_checkpoint(tmp_path / "large.ckpt")
    return tmp_path / "large.ckpt"


def test_failing_predictions_are_a_page(
    tmp_path: Path,
    checkpoint: Path,
    alertmanager: Alertmanager,
    inbox: Any,
    alerts: dict[str, dict[str, Any]],
) -> None:
    small, large = asked([[[0.5]]]), asked([[[0.5]] * 250] * 256)  # whose outputs are 262 MB, needed twice
    with command("--ckpt", checkpoint, "--max-payload", 10_000_000, "--max-batch", 256) as served:
        address = wait_exporter(tmp_path / "spool", 30)
        assert address is not None
        with shipped_prometheus(
            tmp_path / "prometheus", address.port, alertmanager, spools=[tmp_path / "spool"], patience="1s"
        ) as server:
            assert httpx.post(f"{served.url}/predict", json=small).status_code == 200
            used = psutil.Process(served.process.pid).memory_info().vms
            resource.prlimit(served.process.pid, resource.RLIMIT_AS, (used + 420_000_000, -1))
            statuses: set[int] = set()

            def keeps_failing() -> bool:
                statuses.add(httpx.post(f"{served.url}/predict", json=large, timeout=60).status_code)
                statuses.add(httpx.post(f"{served.url}/predict", json=small, timeout=60).status_code)
                return bool(server.query('ALERTS{alertname="HighErrorRate",alertstate="firing"}'))

            eventually(keeps_failing, timeout=90)
            assert statuses == {200, 500}, "one request is too large for the memory left, others are served"
        _, page = inbox.get("/pager")
    (alert,) = page["alerts"]
    assert (alert["labels"]["alertname"], alert["labels"]["endpoint"]) == ("HighErrorRate", "/predict")
    assert alert["annotations"]["runbook_url"] == alerts["HighErrorRate"]["annotations"]["runbook_url"]
