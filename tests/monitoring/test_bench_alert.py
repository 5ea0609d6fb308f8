"""From a model that has become slower to the alert, with the files as they are shipped."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
import tiny
import trained
from pager import Alertmanager, shipped_prometheus
from servers import eventually
from torch import Tensor

from liquid_telemetry.spool import exporter_address, wait_exporter
from liquid_train.__main__ import main
from liquid_train.data import Batch
from liquid_train.tasks.network import SequenceNetwork

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server("prometheus"),
    pytest.mark.server("prometheus-alertmanager"),
    *(pytest.mark.filterwarnings(noise) for noise in tiny.LIGHTNING_NOISE),
]
FIRING = 'ALERTS{alertname="PerformanceRegression",alertstate="firing"}'
PLAIN = SequenceNetwork.forward


def thrice(network: SequenceNetwork, batch: Batch) -> Tensor:
    """What makes a model slower: its work is done three times."""
    for _ in range(2):
        PLAIN(network, batch)
    return PLAIN(network, batch)


def test_a_model_that_takes_three_times_as_long_fires_until_it_is_mended(
    tmp_path: Path, alertmanager: Alertmanager, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny.workplace(tmp_path, exporter=True):
        spool = tmp_path / "spool"
        monkeypatch.setenv("LIQUID_TELEMETRY_ENABLED", "0")
        checkpoint = trained.train("best.ckpt")
        monkeypatch.delenv("LIQUID_TELEMETRY_ENABLED")
        bench = ["bench", "--ckpt", str(checkpoint), "--port", "0", "--baseline", "kept.json"]
        assert main([*bench, "--update-baseline"]) == 0
        address = wait_exporter(spool, 20)
        assert address is not None
        with shipped_prometheus(
            tmp_path / "prometheus", address.port, alertmanager, spools=[spool]
        ) as server:
            monkeypatch.setattr(SequenceNetwork, "forward", thrice)
            assert main(bench) == 2
            ((labels, value),) = eventually(lambda: server.query(FIRING), 60).items()
            assert (dict(labels)["model_name"], dict(labels)["severity"], value) == (
                "LiquidClassifier",
                "warning",
                1,
            )
            monkeypatch.setattr(SequenceNetwork, "forward", PLAIN)
            assert main([*bench, "--allowed", "2"]) == 0
            eventually(lambda: not server.query(FIRING), 60)
        left = exporter_address(spool)
        if left is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(left.pid, signal.SIGTERM)
