"""A small trained checkpoint, made by a real run; shared by the tests of what comes after training."""

from pathlib import Path

import torch
from tiny import fit

from liquid_telemetry import Telemetry
from liquid_train import LiquidClassifier
from liquid_train.data import XorDataModule


def data():
    return XorDataModule(min_bits=2, max_bits=4, train_size=32, val_size=8, test_size=20, batch_size=8)


def train(path=None, **options) -> Path:
    """Train one epoch in the working directory; return the checkpoint, by default in its run directory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    telemetry = Telemetry()
    trainer = fit(telemetry, model=LiquidClassifier(**{"units": 4, **options}), data=data(), max_epochs=1)
    path = Path(path or Path(telemetry.run.dir) / "checkpoints" / "best.ckpt")
    trainer.save_checkpoint(path, weights_only=False)
    return path
