import numpy as np
import pytest
import torch

from liquid_train.data import XorDataModule
from liquid_train.data.xor import encode_events
from liquid_train.errors import InputError


@pytest.mark.parametrize(
    ("bits", "values", "timespans", "target"),
    [
        ([0, 0, 0, 1, 1], [-1, 1, 1], [1, 3, 1], 0),
        ([1, 0, 1], [1, -1, 1], [1, 1, 1], 0),
        ([1], [1], [1], 1),
        ([1, 1, 1], [1, 1], [1, 2], 1),
    ],
)
def test_a_stream_becomes_events(
    bits: list[int], values: list[int], timespans: list[int], target: int
) -> None:
    series = encode_events(np.array(bits))
    assert series.timespans is not None
    assert series.values[:, 0].tolist() == values
    assert series.timespans.tolist() == timespans
    assert int(series.target) == target


def test_events_hold_what_the_parity_needs() -> None:
    splits = XorDataModule(train_size=200, val_size=10, test_size=10).splits
    for series in splits.train:
        assert series.timespans is not None
        spans, bits = series.timespans.long(), (series.values[:, 0] > 0).long()
        # The steps up to an event have the bit of the event before, the event itself has its own.
        ones = bits.sum() + ((spans[1:] - 1) * bits[:-1]).sum()
        assert int(ones) % 2 == int(series.target)
        assert 2 <= int(spans.sum()) <= 12


def test_streams_follow_from_the_seed_and_differ_between_parts() -> None:
    first, again, other = (XorDataModule(train_size=50, seed=seed).splits for seed in (0, 0, 1))
    assert [int(s.target) for s in first.train] == [int(s.target) for s in again.train]
    assert [int(s.target) for s in first.train] != [int(s.target) for s in other.train]
    assert [int(s.target) for s in first.val[:50]] != [int(s.target) for s in first.train]
    targets = torch.stack([s.target for s in first.test]).float()
    assert 0.45 < float(targets.mean()) < 0.55


def test_sizes_out_of_range_are_named() -> None:
    with pytest.raises(
        InputError, match=r"^data\.min_bits=5: must be at least 1 and at most data\.max_bits=4"
    ):
        XorDataModule(min_bits=5, max_bits=4)
    with pytest.raises(InputError, match=r"^data\.val_size=0: must be at least 1"):
        XorDataModule(val_size=0)
