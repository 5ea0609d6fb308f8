"""The event-based XOR task: a problem that cannot be solved without the time between events.

Lechner & Hasani 2020, "Learning Long-Term Dependencies in Irregularly-Sampled Time Series",
arXiv 2006.04418, section 5.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from liquid_train.data.batch import Series
from liquid_train.data.module import SeriesDataModule, Splits
from liquid_train.errors import InputError


class XorDataModule(SeriesDataModule):
    """Streams of random bits, of which only changes are sent; the class is the parity of the ones.

    A stream of bits, one a unit of time, becomes an event where the bit differs from the one before, and a
    last event where the stream ends. An event carries the bit (as -1 or 1) and the time since the event
    before: `0 0 0 1 1` is sent as `0` after 1, `1` after 3, `1` after 1. How many ones there were can be
    told only from the times. Chance is 50 %.
    """

    def __init__(
        self,
        batch_size: int = 128,
        min_bits: int = 2,
        max_bits: int = 12,
        train_size: int = 10_000,
        val_size: int = 1_000,
        test_size: int = 2_000,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        """Store the options; the streams are drawn when they are first needed.

        Args:
            batch_size: streams in a batch.
            min_bits: length of the shortest stream.
            max_bits: length of the longest stream; lengths are uniform between the two. The paper has 32.
            train_size: streams to train on.
            val_size: streams to validate on.
            test_size: streams to test on.
            seed: fixes all streams. It is not the seed of the run.
            num_workers: processes that prepare batches; 0 is fastest for series held in memory.

        Raises:
            InputError: a size is out of range.
        """
        super().__init__(batch_size, num_workers)
        if not 1 <= min_bits <= max_bits:
            raise InputError(
                f"data.min_bits={min_bits}: must be at least 1 and at most data.max_bits={max_bits}"
            )
        self.bits = (min_bits, max_bits)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for name, size in self.sizes.items():
            if size < 1:
                raise InputError(f"data.{name}_size={size}: must be at least 1")
        self.seed = seed

    def load_splits(self) -> Splits:
        """Draw the streams; each part has a random stream of its own."""
        parts = {name: self._draw(size, i) for i, (name, size) in enumerate(self.sizes.items())}
        return Splits(**parts, classes=("even", "odd"))

    def _draw(self, size: int, part: int) -> list[Series]:
        rng = np.random.default_rng((self.seed, part))
        lengths = rng.integers(*self.bits, size=size, endpoint=True)
        return [encode_events(rng.integers(0, 2, size=n)) for n in lengths]


def encode_events(bits: NDArray[np.int64]) -> Series:
    """Return the events of one stream of `bits`, with its parity as the target."""
    changes = np.diff(bits, prepend=-1) != 0
    changes[-1] = True
    events = np.flatnonzero(changes)
    return Series(
        values=torch.tensor(bits[events] * 2 - 1, dtype=torch.float32)[:, None],
        target=torch.tensor(int(bits.sum()) % 2),
        timespans=torch.tensor(np.diff(events, prepend=-1), dtype=torch.float32),
    )
