import numpy as np
import pytest
import torch

from liquid_train.data import Series
from liquid_train.data.batch import collate
from liquid_train.data.prepare import Normalizer, check_share, drop_steps, split_validation
from liquid_train.errors import InputError


def series(*values: float, target: int = 0) -> Series:
    return Series(torch.tensor(values)[:, None], torch.tensor(target))


def test_validation_takes_the_same_share_of_each_class_and_nothing_twice() -> None:
    labels = np.array(["a"] * 20 + ["b"] * 10 + ["c"])
    stay, aside = split_validation(labels, 0.2, seed=0)
    assert sorted([*stay, *aside]) == list(range(31))
    assert [int((labels[aside] == name).sum()) for name in "abc"] == [4, 2, 0]


def test_validation_split_follows_from_the_seed() -> None:
    labels = np.zeros(50)
    _, first = split_validation(labels, 0.1, seed=7)
    _, again = split_validation(labels, 0.1, seed=7)
    _, other = split_validation(labels, 0.1, seed=8)
    assert first.tolist() == again.tolist() != other.tolist()


def test_normalizer_counts_each_step_once_and_leaves_a_constant_channel() -> None:
    short = Series(torch.tensor([[1.0, 5.0]]), torch.tensor(0))
    long = Series(torch.tensor([[2.0, 5.0], [3.0, 5.0], [6.0, 5.0]]), torch.tensor(0))
    normalize = Normalizer.fit([short, long])
    assert normalize.mean.tolist() == [3.0, 5.0]
    assert normalize.scale.tolist() == [pytest.approx(3.5**0.5), 1.0]
    assert normalize(short).values.tolist() == [[pytest.approx(-2 / 3.5**0.5), 0.0]]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.99])
def test_dropping_keeps_values_at_their_true_times(rate: float) -> None:
    whole = series(*range(10, 30))
    kept = drop_steps(whole, rate, (0, 0, 3))
    assert len(kept.values) == max(1, round(20 * (1 - rate)))
    assert kept.timespans is not None
    times = kept.timespans.cumsum(0) - 1
    assert (kept.values[:, 0] == 10 + times).all()
    assert drop_steps(whole, rate, (0, 0, 3)).timespans.tolist() == kept.timespans.tolist()  # type: ignore[union-attr]


def test_nothing_dropped_is_the_networks_default_time() -> None:
    kept = drop_steps(series(1, 2, 3), 0.0, (0,))
    assert kept.timespans is not None
    assert kept.timespans.tolist() == [1, 1, 1]


def test_batches_are_padded_at_the_end_and_carry_lengths() -> None:
    batch = collate([series(1, 2, 3, target=4), series(5, target=6)])
    assert batch.inputs[..., 0].tolist() == [[1, 2, 3], [5, 0, 0]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.targets.tolist() == [4, 6]
    assert batch.timespans is None


def test_timespans_are_padded_with_the_values() -> None:
    batch = collate([drop_steps(series(1, 2, 3), 0.0, (0,)), drop_steps(series(1, 2, 3), 0.6, (1,))])
    assert batch.timespans is not None
    assert batch.timespans.shape == (2, 3)
    assert batch.timespans[1, 1:].tolist() == [0, 0]


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_named(value: float) -> None:
    with pytest.raises(InputError, match=r"^data\.drop_rate=.*: must be at least 0 and below 1"):
        check_share("data.drop_rate", value, zero=True)
    with pytest.raises(InputError, match="must be between 0 and 1"):
        check_share("data.val_fraction", 0.0, zero=False)
