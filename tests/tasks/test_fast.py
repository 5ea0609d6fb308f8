"""A run of the default config learns the same with the fast path on and off.

In single precision rounding is soon magnified: two plain runs, one of which has its inputs changed by 1e-7, drift
apart by 1e-4 of the loss in eight batches and by 1e-2 in fifteen, as the fast and the plain run do. Double precision
shows that nothing else drifts.
"""

from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from liquid_train import LiquidClassifier
from liquid_train.data import ArchiveDataModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]

OPTIONS: dict[str, Any] = {
    "units": 64,
    "readout": "last",
    "learning_rate": 0.003,
    "warmup": 0.1,
    "weight_decay": 0.0001,
    "input_noise": 0.5,
    "label_smoothing": 0.1,
}


class Losses(pl.Callback):
    """Notes the loss of every training batch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Note it."""
        self.values.append(float(outputs["loss"]))


def curve(fast: bool, epochs: int, precision: Any) -> torch.Tensor:
    pl.seed_everything(0)
    losses = Losses()
    model = LiquidClassifier(cell="cfc", cell_options={"mode": "no_gate", "fast": fast}, **OPTIONS)
    data = ArchiveDataModule("JapaneseVowels", batch_size=32, val_fraction=0.1, seed=0)
    trainer = pl.Trainer(
        max_epochs=epochs,
        precision=precision,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[losses],
    )
    trainer.fit(model, data)
    return torch.tensor(losses.values)


def test_the_first_batches_agree_in_single_precision() -> None:
    fast, plain = curve(True, 1, "32-true"), curve(False, 1, "32-true")
    torch.testing.assert_close(fast[:6], plain[:6], rtol=0, atol=5e-5)


def test_the_first_epochs_agree_in_double_precision() -> None:
    fast, plain = curve(True, 3, "64-true"), curve(False, 3, "64-true")
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_the_whole_run_agrees() -> None:
    """Training is chaotic: a change of 1e-15 is magnified to 0.1 in 25 epochs, and the end is the same again."""
    plain = curve(False, 100, "64-true")
    fast = curve(True, 100, "64-true")
    torch.testing.assert_close(fast[:80], plain[:80], rtol=0, atol=1e-6)
    for other in (fast, curve(True, 100, "32-true")):
        assert float(other[-40:].mean()) == pytest.approx(float(plain[-40:].mean()), rel=0.02)
