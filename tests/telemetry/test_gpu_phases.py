"""Phases timed on the device: by events that are asked and never waited for."""

from contextlib import nullcontext

import pytest
import torch
from stream import Stream
from tiny import Tiny, fit, only_run

from liquid_telemetry import Telemetry
from liquid_telemetry.observe import observer
from liquid_telemetry.observe.device import DeviceClock, device_clock
from liquid_telemetry.observe.phases import BACKWARD, FORWARD, OPTIMIZER

NOTHING = nullcontext()


def batch(clock, stream, forward=1.0, backward=2.0, step=4.0):
    """What Lightning does for a batch with automatic optimisation: the optimizer's step contains the rest."""
    clock.begin_batch()
    with clock.section(OPTIMIZER, NOTHING):
        with clock.section(FORWARD, NOTHING):
            stream.hand_over(forward)
        with clock.section(BACKWARD, NOTHING):
            stream.hand_over(backward)
        stream.hand_over(step)


def test_an_inner_phase_is_not_the_outer_ones_and_each_is_told_once():
    stream = Stream()
    clock = DeviceClock(stream.event, every=1)
    batch(clock, stream)
    assert clock.take() == {}
    stream.catch_up()
    assert clock.take() == {"forward": [0.001], "backward": [0.002], "optimizer": [0.004]}
    assert clock.take() == {}


def test_what_has_passed_is_told_in_order_while_the_rest_is_under_way():
    stream = Stream()
    clock = DeviceClock(stream.event, every=1)
    batch(clock, stream)
    stream.catch_up()
    batch(clock, stream, forward=8.0)
    assert clock.take()["forward"] == [0.001]
    stream.catch_up()
    assert clock.take()["forward"] == [0.008]


def test_one_batch_in_ten_and_events_are_used_again():
    stream = Stream()
    clock = DeviceClock(stream.event)
    times = []
    for _ in range(100):
        batch(clock, stream)
        stream.catch_up()
        times += clock.take().get("forward", [])
    assert times == [0.001] * 10
    assert stream.made == 6


def test_a_device_that_lags_is_given_no_more_events():
    stream = Stream(working=False)
    clock = DeviceClock(stream.event, every=1)
    for _ in range(1000):
        batch(clock, stream)
    assert stream.made <= 2 * (64 + 3)
    stream.working = True
    stream.catch_up()
    assert len(clock.take()["forward"]) == 22
    batch(clock, stream)
    stream.catch_up()
    assert clock.take()["forward"] == [0.001]


@pytest.mark.parametrize("batches_before", [0, 3])
def test_a_device_that_has_failed_disturbs_nobody(batches_before):
    stream = Stream()
    clock = DeviceClock(stream.event, every=1)
    for _ in range(batches_before):
        batch(clock, stream)
    stream.failed = True
    batch(clock, stream)
    assert clock.take() == {}


def test_a_step_that_fails_leaves_no_phase_open():
    stream = Stream()
    clock = DeviceClock(stream.event, every=1)
    clock.begin_batch()
    with pytest.raises(ValueError, match="mine"), clock.section(FORWARD, NOTHING):
        raise ValueError("mine")
    batch(clock, stream)
    stream.catch_up()
    assert clock.take()["forward"] == [0.0, 0.001]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_exports_them(monkeypatch, accumulate):
    stream = Stream()

    class Working(Tiny):
        def training_step(self, batch, batch_idx):
            stream.hand_over(3.0)
            stream.catch_up()
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr(observer, "device_clock", lambda device: DeviceClock(stream.event, every=1))
    fit(Telemetry(device_phases=True), model=Working(), accumulate_grad_batches=accumulate)
    metrics = only_run().metrics
    counts = metrics["training_device_phase_duration_seconds_count"]
    assert counts[("phase", "forward"),] == 6
    assert counts[("phase", "backward"),] == 6
    assert metrics["training_device_phase_duration_seconds_sum"][("phase", "forward"),] == pytest.approx(
        0.018
    )
    assert counts[("phase", "optimizer"),] == {1: 6, 2: 4}[accumulate]


def test_other_devices_have_no_such_clock():
    assert device_clock(torch.device("cpu")) is None
    fit(Telemetry(device_phases=True))
    assert "training_device_phase_duration_seconds_count" not in only_run().metrics


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_timed_without_waiting():
    fit(Telemetry(device_phases=True), accelerator="gpu")
    assert only_run().metrics["training_device_phase_duration_seconds_count"][("phase", "forward"),] == 1
