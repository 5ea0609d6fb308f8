"""Every nanosecond belongs to exactly one phase."""

import random

import numpy as np

from liquid_telemetry.observe.phases import BACKWARD, DATA, FORWARD, OPTIMIZER, OTHER, VALIDATION, PhaseClock
from liquid_telemetry.testing import TickingClock


def test_an_inner_phase_stops_the_outer_one():
    now = TickingClock()
    phases = PhaseClock(now)
    now.advance(1)
    phases.enter(FORWARD)
    now.advance(2)
    phases.enter(BACKWARD)
    now.advance(4)
    phases.leave()
    now.advance(8)
    phases.leave()
    now.advance(16)
    seconds = [ns / 1e9 for ns in phases.snapshot(now())]
    assert (seconds[OTHER], seconds[FORWARD], seconds[BACKWARD]) == (17, 10, 4)
    assert sum(seconds) == 31


def test_inside_validation_everything_is_validation():
    now = TickingClock()
    phases = PhaseClock(now)
    phases.enter(VALIDATION)
    phases.enter(DATA)
    now.advance(3)
    phases.leave()
    phases.leave()
    assert phases.snapshot(now())[VALIDATION] == 3e9


def test_more_ends_than_starts():
    now = TickingClock()
    phases = PhaseClock(now)
    phases.leave()
    phases.enter(DATA)
    now.advance(1)
    phases.leave()
    phases.leave()
    now.advance(2)
    snapshot = phases.snapshot(now())
    assert (snapshot[DATA], snapshot[OTHER]) == (1e9, 2e9)


def test_batches_of_every_shape_add_up():
    now = TickingClock(tick=1)
    phases, marks = PhaseClock(now), random.Random(4)
    data, step, forward = (phases.section(phase) for phase in (DATA, OPTIMIZER, FORWARD))
    before, spent, steps = phases.snapshot(now()), [], []
    phases.restart_batch()
    for number in range(700):
        with data:
            now.advance(1e-9 * marks.randrange(9))
        for _ in range(marks.choice([0, 1, 1, 1, 2])):
            with step, forward:
                pass
        if number % 50 == 7:
            phases.enter(VALIDATION)
            for _ in range(number):
                with data:
                    pass
            phases.leave()
        if number % 90 == 11:
            phases.snapshot(now())
        phases.end_batch(now())
        if number % 100 == 3:
            spent += phases.take_batches().nanoseconds.tolist()
        steps.append(phases.optimizer_steps)
    rest = phases.take_batches()
    spent += rest.nanoseconds.tolist()
    after = phases.snapshot(now.nanoseconds)
    assert len(spent) == 700
    assert np.sum(spent, axis=0).tolist() == np.subtract(after, before).tolist()
    assert sum(after) == now.nanoseconds - phases.started
    assert rest.optimizer_steps.tolist() == steps[-len(rest.optimizer_steps) :]


def test_a_mark_that_was_interrupted_is_forgotten():
    now = TickingClock(tick=1)
    phases = PhaseClock(now)
    phases.times.append(now())
    phases.end_batch(now())
    assert sum(phases.snapshot(now())) == now.nanoseconds - phases.started


def test_marks_are_few_where_no_batch_ends():
    phases = PhaseClock(TickingClock(tick=1))
    with phases.section(VALIDATION):
        for _ in range(100_000):
            phases.enter(DATA)
            phases.leave()
            phases.compact()
    assert len(phases.times) < 5000
