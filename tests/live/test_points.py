"""The course of a run in a bounded number of points."""

import math
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from liquid_telemetry.live.points import MAX_POINTS, Points, decode, encode


def filled(count, limit=MAX_POINTS, every=1.0):
    points = Points(limit)
    for step in range(count):
        points.add({"time": step * every, "step": step, "loss": 1.0 / (step + 1)})
    return points


def test_bounded_in_order_with_both_ends():
    points = filled(100_000)
    times = list(points.times)
    assert len(times) <= MAX_POINTS
    assert times == sorted(set(times))
    assert (times[0], times[-1]) == (0, 99_999)


def test_thinned_points_lie_evenly():
    times = filled(100_000).times
    gaps = [later - earlier for earlier, later in pairwise(times)][:-1]
    assert max(gaps) <= 2.1 * min(gaps)
    assert len(times) > MAX_POINTS / 3


def test_a_step_costs_no_more_than_the_newest_point():
    points = filled(3, every=0.1)
    assert list(points.times) == [0, 0.2]
    assert points.kept == 1
    points.add({"time": 5.0})
    assert list(points.times) == [0, 5]
    assert points.kept == 2


def test_what_is_older_than_the_newest_is_left_out():
    points = filled(3)
    points.add({"time": 1.5, "loss": 7.0})
    assert list(points.times) == [0, 1, 2]


def test_times_are_the_same_in_a_file_and_in_an_answer():
    points = Points()
    points.add({"time": 1795643586.106734})
    assert list(points.times) == points.tail(0.0)["time"] == list(decode([encode(points.point(0))]).times)
    assert points.tail(points.times[0])["time"] == []


def test_version_grows_exactly_when_kept_points_go():
    points = filled(10, limit=10)
    assert points.version == 0
    points.add({"time": 10.0})
    assert points.version == 1
    assert list(points.times) == [0, 2, 4, 6, 8, 10]


def test_unknown_is_left_out_of_a_point_and_null_in_a_column():
    points = Points()
    points.add({"time": 1.0, "loss": math.inf})
    assert points.point(0) == {"time": 1.0, "loss": math.inf}
    tail = points.tail(0.0)
    assert (tail["time"], tail["loss"], tail["accuracy"]) == ([1.0], [None], [None])
    assert points.tail(1.0)["time"] == []


def test_lines_that_are_no_points_are_left_out():
    lines = [
        encode({"time": 1.0, "loss": 0.5}),
        "",
        "{",
        "[1]",
        '{"loss": 1}',
        '{"time": "x"}',
        '{"time": NaN}',
    ]
    points = decode([*lines, "[" * 100_000, encode({"time": 2.0})])
    assert list(points.times) == [1, 2]
    assert points.point(0) == {"time": 1.0, "loss": 0.5}


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e9), max_size=200), st.integers(4, 40))
def test_any_times_keep_the_first_and_the_newest(times, limit):
    points = Points(limit)
    for time in times:
        points.add({"time": time})
    kept = list(points.times)
    assert len(kept) <= limit
    assert kept == sorted(set(kept))
    if times:
        assert (kept[0], kept[-1]) == (round(times[0], 2), round(max(times), 2))


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True).map(sorted))
def test_what_is_written_is_read_again(times):
    points = Points(30)
    for time in times:
        points.add({"time": time, "loss": time / 4})
    again = decode(encode(points.point(index)) for index in range(len(points)))
    assert again.point(-1) == points.point(-1)
