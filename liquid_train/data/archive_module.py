"""The UCR/UEA archive, or one's own `.ts` files, as a data module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from liquid_train.data.archive import RawPart, load_problem
from liquid_train.data.batch import Series
from liquid_train.data.module import SeriesDataModule, Splits
from liquid_train.data.prepare import Normalizer, check_share, drop_steps, split_validation
from liquid_train.errors import InputError


class ArchiveDataModule(SeriesDataModule):
    """A classification or regression problem of the UCR/UEA archive, or one's own `.ts` files.

    Validation series are drawn from the training part, the same share of each class; the test part is
    never used to choose a model. Each channel is normalised by the mean and standard deviation of what is
    left of the training part.
    """

    def __init__(
        self,
        dataset: str,
        batch_size: int = 32,
        val_fraction: float = 0.1,
        drop_rate: float = 0.0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        """Store the options; files are read when the data is first needed.

        Args:
            dataset: name in the archive, such as `JapaneseVowels`, or a path `DIR/NAME` to one's own
                `DIR/NAME_TRAIN.ts` and `DIR/NAME_TEST.ts`. aeon downloads a name that it does not ship.
            batch_size: series in a batch.
            val_fraction: share of the training part to set aside for validation.
            drop_rate: share of the time steps of each series to drop; the network is told the true time
                between those that stay.
            seed: fixes the validation series and the dropped steps. It is not the seed of the run: runs
                with different seeds share one split, and a checkpoint is validated on the right series.
            num_workers: processes that prepare batches; 0 is fastest for series held in memory.

        Raises:
            InputError: a share is out of range.
        """
        super().__init__(batch_size, num_workers)
        check_share("data.val_fraction", val_fraction, zero=False)
        check_share("data.drop_rate", drop_rate, zero=True)
        self.dataset = dataset
        self.val_fraction = val_fraction
        self.drop_rate = drop_rate
        self.seed = seed

    def load_splits(self) -> Splits:
        """Read, split, drop and normalise.

        Raises:
            InputError: the problem cannot be had, or too few series are left for one of the parts.
        """
        raw_train, raw_test = load_problem(self.dataset)
        classes = None if raw_train.regression else tuple(sorted(set(raw_train.labels.tolist())))
        train, test = (self._series(raw, classes, part) for part, raw in enumerate((raw_train, raw_test)))
        strata = np.zeros(len(train)) if classes is None else raw_train.labels
        stay, aside = split_validation(strata, self.val_fraction, self.seed)
        if len(stay) == 0 or len(aside) == 0:
            raise InputError(
                f"data.val_fraction={self.val_fraction}: leaves {len(stay)} series of {raw_train.origin} for training "
                f"and {len(aside)} for validation; each part needs at least one"
            )
        normalize = Normalizer.fit([train[i] for i in stay])
        return Splits(
            train=[normalize(train[i]) for i in stay],
            val=[normalize(train[i]) for i in aside],
            test=[normalize(s) for s in test],
            classes=classes,
        )

    def _series(self, raw: RawPart, classes: Sequence[str] | None, part: int) -> list[Series]:
        targets = torch.tensor(raw.labels, dtype=torch.float32) if classes is None else _index(raw, classes)
        values = (torch.tensor(v, dtype=torch.float32) for v in raw.values)
        series = [Series(v, t) for v, t in zip(values, targets, strict=True)]
        if self.drop_rate == 0:
            return series
        return [drop_steps(s, self.drop_rate, (self.seed, part, i)) for i, s in enumerate(series)]


def _index(raw: RawPart, classes: Sequence[str]) -> torch.Tensor:
    """Return [N] class indices of the labels."""
    unknown = sorted(set(raw.labels.tolist()) - set(classes))
    if unknown:
        raise InputError(
            f"{raw.origin}: class {unknown[0]!r} is not in the training part ({', '.join(classes)})"
        )
    order: NDArray[np.intp] = np.searchsorted(np.array(classes), raw.labels)
    return torch.from_numpy(order)
