"""Loaders that shuffle by seed and epoch, and that resume in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from liquid_train.data.batch import Series, collate


class EpochSampler(Sampler[int]):
    """Shuffle anew in every epoch, by `seed` and epoch alone, so that an order can be had again.

    Lightning calls `set_epoch`, as it does for a `DistributedSampler`.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of `epoch`."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())


class ResumableLoader(DataLoader[Series]):
    """A training loader whose place in the epoch goes into the checkpoint.

    It skips the batches that were handed out before, if the epoch is the one in which they were. The
    sampler has an attribute `epoch`.
    """

    def __init__(self, dataset: Any, resume_at: tuple[int, int] = (-1, 0), **options: Any) -> None:
        """Store the epoch to go on in and how many of its batches to skip."""
        super().__init__(dataset, **options)
        self.resume_at = resume_at
        self._seen = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator: its body runs at the first batch, when Lightning has told the sampler the epoch.
        epoch, seen = self.resume_at
        self._seen = seen if epoch == self._epoch else 0
        for batch in islice(super().__iter__(), self._seen, None):
            self._seen += 1
            yield batch

    @property
    def _epoch(self) -> int:
        return int(getattr(self.sampler, "epoch", 0))

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were handed out."""
        return {"epoch": self._epoch, "batches": self._seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state` was taken."""
        self.resume_at = (state["epoch"], state["batches"])


def train_loader(series: Sequence[Series], batch_size: int, num_workers: int, seed: int) -> ResumableLoader:
    """Return a loader of `Batch` that shuffles and resumes."""
    sampler = EpochSampler(len(series), seed)
    return ResumableLoader(series, sampler=sampler, **_options(batch_size, num_workers))


def eval_loader(series: Sequence[Series], batch_size: int, num_workers: int) -> DataLoader[Series]:
    """Return a loader of `Batch` in the order of `series`."""
    return DataLoader(series, **_options(batch_size, num_workers))  # type: ignore[arg-type]


def _options(batch_size: int, num_workers: int) -> dict[str, Any]:
    # A generator of its own: a loader otherwise draws from torch's global random numbers at each epoch.
    return {
        "batch_size": batch_size,
        "num_workers": num_workers,
        "collate_fn": collate,
        "generator": torch.Generator(),
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
    }
