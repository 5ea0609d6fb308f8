"""Checkpoints of real training, small."""

import pytest
import torch
from tiny import trainer
from torch.utils.data import DataLoader

from liquid_train.__main__ import main
from liquid_train.data.batch import Series, collate
from liquid_train.tasks import LiquidRegressor

FIT = [
    "fit",
    "--model=LiquidClassifier",
    "--model.units=6",
    "--data=XorDataModule",
    "--data.train_size=40",
    "--data.val_size=10",
    "--data.test_size=50",
    "--telemetry.enabled=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.max_epochs=1",
]


@pytest.fixture(autouse=True)
def _private(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path / "spool"))
    for name in ("TRACEPARENT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A checkpoint that the command wrote: CfC, last step, one irregularly sampled channel."""
    folder = tmp_path_factory.mktemp("classifier")
    assert main([*FIT, f"--checkpoint.dirpath={folder}"]) == 0
    return folder / "best.ckpt"


@pytest.fixture(scope="session")
def regressor(tmp_path_factory):
    """A checkpoint of a wired LTC with the mean over all steps, two channels."""
    drawn = torch.Generator().manual_seed(3)
    series = [Series(torch.randn(n, 2, generator=drawn), torch.tensor(float(n))) for n in (3, 5, 9, 4)]
    model = LiquidRegressor(
        cell="ltc", wiring={"type": "AutoNCP", "units": 8, "output_size": 3}, readout="mean", input_size=2
    )
    made = trainer(max_epochs=1)
    loader = DataLoader(series, batch_size=2, collate_fn=collate)
    made.fit(model, loader, loader)
    path = tmp_path_factory.mktemp("regressor") / "last.ckpt"
    made.save_checkpoint(path)
    return path
