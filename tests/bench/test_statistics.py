"""The interval of a ratio of medians, the verdict, and blocks that take turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_train.bench import measure, statistics
from liquid_train.bench.statistics import Interval, ratio_of_medians, verdict

blocks = st.lists(st.floats(1e-5, 1.0), min_size=5, max_size=40)


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)


@settings(max_examples=40, deadline=None)
@given(now=blocks, before=blocks, unit=st.sampled_from([1e-3, 60.0]))
def test_the_interval_is_ordered_within_the_data_and_of_no_unit(now, before, unit):
    found = ratio_of_medians(now, before, 0.99, seed=0)
    assert found.ratio == np.median(now) / np.median(before)
    assert min(now) / max(before) <= found.low <= found.high <= max(now) / min(before)
    scaled = ratio_of_medians([unit * one for one in now], [unit * one for one in before], 0.99, seed=0)
    assert np.allclose([scaled.ratio, scaled.low, scaled.high], [found.ratio, found.low, found.high])


@settings(max_examples=40, deadline=None)
@given(now=blocks)
def test_the_same_times_are_never_slower_or_faster(now):
    found = ratio_of_medians(now, now, 0.99, seed=0)
    assert found.low <= 1 <= found.high
    assert verdict(found, found, 1.0001) in ("same", "unclear")


@settings(max_examples=40, deadline=None)
@given(before=blocks, factor=st.floats(1.2, 50.0))
def test_what_takes_longer_than_anything_allowed_before_is_slower(before, factor):
    """All blocks now are above 1.1 times all blocks then: no resampling can hide that."""
    now = [1.1 * max(before) * factor] * 5
    found = ratio_of_medians(now, before, 0.99, seed=0)
    assert verdict(found, found, 1.1) == "slower"
    back = ratio_of_medians(before, now, 0.99, seed=0)
    assert verdict(back, back, 1.1) == "faster"


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """A hundred pairs from one skewed distribution: at 95 % about five intervals miss 1, hardly ever twelve."""
    random = np.random.default_rng(7)
    missed = 0
    for number in range(100):
        now, before = random.lognormal(0, 0.3, (2, 30))
        found = ratio_of_medians(now.tolist(), before.tolist(), 0.95, seed=number)
        missed += not found.low <= 1 <= found.high
    assert missed <= 12


def test_more_confidence_is_a_wider_interval():
    random = np.random.default_rng(0)
    now, before = random.lognormal(0, 0.3, (2, 30)).tolist()
    narrow, wide = (ratio_of_medians(now, before, share, seed=0) for share in (0.8, 0.999))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("times", "relative", "expected"),
    [
        ((1.2, 1.15, 1.3), (1.2, 1.12, 1.3), "slower"),
        ((1.2, 1.05, 1.3), (1.2, 1.12, 1.3), "unclear"),  # the interval reaches below what is allowed
        ((1.5, 1.40, 1.6), (1.0, 0.95, 1.05), "unclear"),  # the machine was as much slower
        ((1.0, 0.95, 1.09), (1.0, 0.90, 1.2), "same"),
        (
            (1.08, 1.06, 1.09),
            (1.08, 1.06, 1.09),
            "same",
        ),  # slower for certain, but by no more than is allowed
        ((0.5, 0.4, 0.6), (0.5, 0.4, 0.6), "faster"),
        ((0.5, 0.4, 0.6), (1.0, 0.9, 1.1), "unclear"),
    ],
)
def test_verdicts(times, relative, expected):
    assert verdict(Interval(*times), Interval(*relative), 1.1) == expected


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.ns = 0
        self.calls = []

    def __call__(self):
        return self.ns

    def taking(self, name, ns):
        def call():
            self.calls.append(name)
            self.ns += ns

        return call


def test_blocks_take_turns_and_times_are_exact(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measure, "clock", clock)
    usual = {"short": 1_000_000, "long": 30_000_000, "tiny": 1_000}
    calls = {name: clock.taking(name, ns) for name, ns in usual.items()}
    found = measure.measure(calls, blocks=8, warmup=4, seed=0)
    sizes = {"short": 40, "long": measure.FEWEST, "tiny": measure.MOST}
    for name, ns in usual.items():
        assert found[name] == [[ns / 1e9] * sizes[name]] * 8
    made = clock.calls[4 * 3 :]
    rounds = [made[start : start + sum(sizes.values())] for start in range(0, len(made), sum(sizes.values()))]
    orders = {tuple(dict.fromkeys(one)) for one in rounds}
    assert all({name: one.count(name) for name in usual} == sizes for one in rounds)
    assert len(rounds) == 8
    assert len(orders) > 1


def test_slow_calls_end_after_some_rounds(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measure, "clock", clock)
    found = measure.measure({"slow": clock.taking("slow", 4_000_000_000)}, blocks=30, warmup=1, seed=0)
    assert len(found["slow"]) == measure.LEAST_ROUNDS + 1
