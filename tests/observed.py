"""A run in which everything happens that a dashboard shows.

    python observed.py

It trains, validates and keeps checkpoints, has three losses of NaN, and is then validated, tested and asked to
predict. Where there is no GPU, a stand-in for its stream and its memory takes its place. It says that it is one of two
ranks, as only those tell of themselves.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from stream import Stream
from tiny import Tiny, loader, trainer

from liquid_telemetry import Telemetry
from liquid_telemetry.observe import observer, progress
from liquid_telemetry.observe.device import DeviceClock

EPOCHS, BATCHES, EVALUATED = 4, 40, 20
BAD = 3
CUDA_BYTES = {"cuda_allocated": 1024, "cuda_reserved": 2048}
PAUSE = 0.04


class Observed(Tiny):
    """A linear classifier that takes its time."""

    stream = Stream()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(PAUSE)
        self.stream.hand_over(3.0)
        self.stream.catch_up()
        loss = super().training_step(batch, batch_idx)
        return loss * 0 + math.nan if self.current_epoch == 1 and batch_idx < BAD else loss

    def _evaluate(self) -> None:
        time.sleep(PAUSE)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate()
        super().validation_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate()
        super().test_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        self._evaluate()
        return super().predict_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


def main() -> None:
    """Run."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    progress.cuda_bytes = lambda: CUDA_BYTES
    observer.device_clock = lambda device: DeviceClock(Observed.stream.event, every=1)
    new_run = observer.new_run
    observer.new_run = lambda *args, **options: replace(new_run(*args, **options), world_size=2)
    telemetry = Telemetry(port=0, gradient_norm=True, device_phases=True)
    keep = ModelCheckpoint("kept", filename="{epoch}", save_top_k=-1)
    made = trainer(telemetry, keep, max_epochs=EPOCHS, enable_checkpointing=True, num_sanity_val_steps=0)
    model = Observed()
    made.fit(model, loader(BATCHES), loader(EVALUATED))
    made.validate(model, loader(EVALUATED))
    made.test(model, loader(EVALUATED))
    made.predict(model, loader(EVALUATED))


if __name__ == "__main__":
    main()
