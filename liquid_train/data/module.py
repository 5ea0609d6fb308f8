"""Lightning data modules over time series."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from liquid_train.data.batch import Series
from liquid_train.data.loaders import ResumableLoader, eval_loader, train_loader
from liquid_train.errors import InputError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Splits:
    """What a data module hands out; no series is in two parts."""

    train: Sequence[Series]
    val: Sequence[Series]
    """Chooses the best checkpoint."""
    test: Sequence[Series]
    """Is looked at once, at the end."""
    classes: tuple[str, ...] | None = None
    """The name of each class index; None for regression."""


class SeriesDataModule(pl.LightningDataModule):
    """Base of the data modules: subclass it and write `load_splits` to bring your own data.

    A model learns the sizes that it needs from `input_size`, `num_classes` and `target_scale`. Batches are
    `liquid_train.data.Batch`; those of training come in an order that depends on the run's seed and the
    epoch alone, and resume in the middle of an epoch.
    """

    def __init__(self, batch_size: int = 32, num_workers: int = 0) -> None:
        """Store the options of the loaders.

        Args:
            batch_size: series in a batch.
            num_workers: processes that prepare batches; 0 is fastest for series held in memory.
        """
        super().__init__()
        if batch_size < 1:
            raise InputError(f"data.batch_size={batch_size}: must be at least 1")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self._splits: Splits | None = None
        self._place: dict[str, Any] = {}

    @abstractmethod
    def load_splits(self) -> Splits:
        """Return the series of each part, ready for the network."""

    @property
    def splits(self) -> Splits:
        """The series, loaded at first use."""
        if self._splits is None:
            self._splits = self.load_splits()
            for name in ("train", "val", "test"):
                if len(getattr(self._splits, name)) == 0:
                    raise InputError(
                        f"{type(self).__name__}: the {name} part has no series; it needs at least one"
                    )
        return self._splits

    @property
    def input_size(self) -> int:
        """Channels of each series."""
        return int(self.splits.train[0].values.shape[1])

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None for regression."""
        return len(self.splits.classes) if self.splits.classes else None

    @property
    def target_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training targets, for regression."""
        targets = [float(s.target) for s in self.splits.train]
        mean = sum(targets) / len(targets)
        deviation = (sum((t - mean) ** 2 for t in targets) / len(targets)) ** 0.5
        return mean, deviation or 1.0

    def prepare_data(self) -> None:
        """Load on one process of each machine first, so that a download happens once."""
        _ = self.splits

    def setup(self, stage: str) -> None:
        """Load the series on every process."""
        _ = self.splits

    def train_dataloader(self) -> DataLoader[Series]:
        """Return shuffled batches; the order follows from the seed of the run."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        loader = train_loader(self.splits.train, self.batch_size, self.num_workers, seed)
        if self._place:
            loader.load_state_dict(self._place)
            self._place = {}
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Return the place of the training loader in its epoch."""
        loader = self.trainer.train_dataloader if self.trainer else None
        return loader.state_dict() if isinstance(loader, ResumableLoader) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the training loader go on from its place.

        Lightning does so itself, but not where the loader is made before the checkpoint is read, as by
        `trainer.estimated_stepping_batches`.
        """
        if self.trainer and self.trainer.training:
            self._place = state_dict

    def val_dataloader(self) -> DataLoader[Series]:
        """Return the validation batches in order."""
        return eval_loader(self.splits.val, self.batch_size, self.num_workers)

    def test_dataloader(self) -> DataLoader[Series]:
        """Return the test batches in order."""
        return eval_loader(self.splits.test, self.batch_size, self.num_workers)

    def predict_dataloader(self) -> DataLoader[Series]:
        """Return the test batches in order: predictions are made for the test part."""
        return self.test_dataloader()
