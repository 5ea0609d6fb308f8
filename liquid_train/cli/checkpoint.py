"""Checkpoints in the run's directory: the best by validation, and the newest to go on from."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from liquid_telemetry import Telemetry


class RunCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt` and `last.ckpt` in `checkpoints/` of the run's directory.

    `best.ckpt` is the best by `monitor`; of equal ones the newest. `last.ckpt` is written after every epoch
    and when training is stopped between two batches, never from the middle of one. Both hold torch's random
    state, so that a resumed run goes on exactly as it would have.
    """

    def __init__(
        self,
        dirpath: str | None = None,
        monitor: str | None = "val_loss",
        mode: Literal["min", "max"] = "min",
        every_n_train_steps: int = 0,
    ) -> None:
        """Store the options; the directory is chosen when a run begins.

        Args:
            dirpath: directory for the checkpoints; by default `runs/<run id>/checkpoints`.
            monitor: logged value that decides which checkpoint is best; null takes the newest for the best.
            mode: whether the best value is the lowest (`min`) or the highest (`max`).
            every_n_train_steps: also write `last.ckpt` after every so many steps; 0 for epochs only.
        """
        super().__init__(dirpath, "best", monitor=monitor, mode=mode, enable_version_counter=False)
        self._chosen_dir = dirpath
        self._every_n_steps = every_n_train_steps
        self._last_step = 0
        self._random_state: Tensor | None = None
        named = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
        self._own_dir = Path(dirpath).parent if dirpath else Path("runs") / named

    def run_dir(self, trainer: pl.Trainer) -> Path:
        """Return the run's directory: that of the telemetry; without it that around `dirpath`, or a new one."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Telemetry) and callback.run is not None:
                return Path(callback.run.dir)
        return self._own_dir

    @property
    def last_path(self) -> Path:
        """The newest checkpoint."""
        return Path(self.dirpath or ".") / "last.ckpt"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose the directory."""
        if self._chosen_dir is None:
            self.dirpath = str(self.run_dir(trainer) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put back the random state of the checkpoint that training resumes from."""
        super().on_train_start(trainer, pl_module)
        self._last_step = trainer.global_step
        if self._random_state is not None:
            torch.set_rng_state(self._random_state)
            self._random_state = None

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Write `last.ckpt` every so many steps."""
        super().on_train_batch_end(trainer, *args, **kwargs)
        if self._every_n_steps and trainer.global_step % self._every_n_steps == 0:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write `best.ckpt` if this epoch is the best, and `last.ckpt`."""
        super().on_train_epoch_end(trainer, pl_module)
        self._save_last(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write `last.ckpt` when training stops between two batches."""
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        between_batches = trainer.training and progress.ready == progress.processed
        if between_batches and trainer.global_step > self._last_step:
            self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._last_step = trainer.global_step
            trainer.save_checkpoint(self.last_path, weights_only=False)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Return whether `current` is at least as good as the best: of equal ones the newest is kept."""
        equal = current is not None and self.best_model_score is not None and current == self.best_model_score
        return bool(equal) or super().check_monitor_top_k(trainer, current)

    def state_dict(self) -> dict[str, Any]:
        """Add torch's random state to Lightning's own record of the best."""
        return {**super().state_dict(), "random_state": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the earlier run's best; its files stay where they are."""
        self._random_state = state_dict["random_state"]
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})
