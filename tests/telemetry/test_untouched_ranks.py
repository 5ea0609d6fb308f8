"""Every configuration that ships trains on two ranks to the same bits with telemetry as without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import runs
from witness import differences

HERE = Path(__file__).parent
ASKED = {("tolist", "_floats")}
AT_SETUP = {(name, "new_run") for name in ("__index__", "cpu", "item", "numpy")}
"""The ranks agree on the name of the run by a broadcast, whose receivers read it."""
CONFIGS = sorted((HERE.parents[1] / "configs").glob("*.yaml"))
DEFAULT = [config for config in CONFIGS if config.stem == "japanese_vowels_cfc"]


@pytest.mark.parametrize(
    "configs", [DEFAULT, pytest.param(CONFIGS, marks=pytest.mark.slow)], ids=["default", "every"]
)
def test_two_ranks_of_a_config_train_to_the_same_bits(configs, exporter, tmp_path):
    folder = tmp_path / "testimonies"
    folder.mkdir()
    program = HERE / "scripts" / "two_ranks.py"
    process = subprocess.run(
        [sys.executable, program, folder, *configs],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert process.returncode == 0, process.stdout + process.stderr

    def testimony(config, switch, rank):
        return torch.load(folder / f"{config.stem}.{switch}.{rank}.pt", weights_only=False)

    for config in configs:
        for rank in (0, 1):
            bare, observed = (testimony(config, switch, rank) for switch in ("off", "on"))
            assert bare.pop("asked") == []
            assert set(observed.pop("asked")) - AT_SETUP == ASKED
            assert differences(bare, observed) == [], (config.stem, rank)
            assert len(bare["losses"]) == 6
    counted = [event["batches"] for run in runs() for event in run.events_named("training_completed")]
    assert counted == [6] * len(configs)
