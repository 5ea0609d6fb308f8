"""The device is never made to wait."""

from collections import Counter

import pytest
import torch
from lightning.pytorch import Callback
from tiny import COMBINATIONS, Tiny, TinyData, fit, loader, only_run

from liquid_telemetry import Telemetry
from liquid_telemetry.observe.scalars import DeferredScalars, as_vector
from liquid_telemetry.testing import TickingClock

WAITING = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__")


@pytest.fixture
def waits(monkeypatch):
    """Counts the calls that wait for a device."""
    counted = Counter()
    for name in WAITING:
        original = getattr(torch.Tensor, name)

        def call(self, *args, _original=original, _name=name, **kwargs):
            counted[_name] += 1
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, call)
    return counted


class Long(TinyData):
    def train_dataloader(self):
        return loader(100)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_hundred_batches_are_read_in_one_go(waits, accumulate):
    options = {"data": Long(), "max_epochs": 1, "limit_val_batches": 0, "accumulate_grad_batches": accumulate}
    fit(**options)
    bare = Counter(waits)
    waits.clear()
    fit(Telemetry(clock=TickingClock()), **options)
    assert waits - bare == Counter(tolist=2)  # the losses, and what the epoch has logged


def test_the_gradient_norm_is_not_read_per_batch(waits):
    options = {"data": Long(), "max_epochs": 1, "limit_val_batches": 0}
    fit(**options)
    bare = Counter(waits)
    waits.clear()
    fit(Telemetry(clock=TickingClock(), gradient_norm=True), **options)
    assert waits - bare == Counter(tolist=3)


@pytest.mark.parametrize("kinds", COMBINATIONS.values(), ids=COMBINATIONS)
def test_evaluation_reads_nothing_per_batch(waits, kinds):
    """What a stage has logged is read in one go at its end, however many batches it has."""

    class Long(TinyData):
        val_dataloader = test_dataloader = predict_dataloader = lambda self: loader(60)

    def everything(*callbacks):
        waits.clear()
        made = fit(*callbacks, data=Long(), max_epochs=1, num_sanity_val_steps=2)
        made.validate(made.lightning_module, datamodule=Long(), verbose=False)
        made.test(made.lightning_module, datamodule=Long(), verbose=False)
        made.predict(made.lightning_module, datamodule=Long())
        return Counter(waits)

    bare = everything()
    observed = everything(*(kind(clock=TickingClock()) for kind in kinds))
    assert observed - bare == Counter(
        tolist=5
    )  # losses; what the epoch, its validation, validate and test have logged


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
HOOKS = [name for name in dir(Callback) if name.startswith("on_") or name in ("setup", "teardown")]


class Strict(Telemetry):
    """Lets CUDA raise when one of its hooks waits for the device."""

    def setup(self, *arguments, **options):
        super().setup(*arguments, **options)
        for name in HOOKS:
            hook = getattr(self, name)
            if callable(hook):
                setattr(self, name, strict(name, hook))


def strict(name, hook):
    def call(*arguments, **options):
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.profiler.record_function(f"ours: {name}"):
                return hook(*arguments, **options)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    return call


@needs_cuda
@pytest.mark.parametrize("options", [{}, {"gradient_norm": True}, {"device_phases": True}], ids=str)
def test_no_hook_waits_for_the_gpu(options):
    fit(Strict(**options), data=Long(), accelerator="gpu", max_epochs=2)
    assert len(only_run().events_named("training_epoch_completed")) == 2


@needs_cuda
def test_a_trace_of_a_run_on_a_gpu_shows_no_wait_in_our_hooks(tmp_path):
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        fit(Strict(), data=Long(), accelerator="gpu", max_epochs=1)
    ours = [event.time_range for event in profile.events() if event.name.startswith("ours: on_train_batch")]
    waits = [event for event in profile.events() if event.name.endswith("Synchronize")]
    assert len(ours) == 200
    assert not [
        wait.name
        for wait in waits
        for hook in ours
        if hook.start <= wait.time_range.start and wait.time_range.end <= hook.end
    ]


def test_the_graph_of_extra_outputs_is_not_kept():
    import weakref

    kept = []

    class Extra(Tiny):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            hidden = self.linear.weight * 2
            kept.append(weakref.ref(hidden))
            return {"loss": loss, "hidden": hidden}

    fit(Telemetry(clock=TickingClock()), model=Extra())
    assert all(reference() is None for reference in kept[:-1])


class Slow:
    """A copy that arrives when told; reading it before that would wait."""

    def __init__(self, vector):
        self.values, self.arrived, self.waited, self.broken = vector.tolist(), False, False, False

    def ready(self):
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return self.arrived

    def read(self):
        self.waited = not self.arrived
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return self.values


@pytest.fixture
def slow():
    copies, delivered = [], []

    def copy(vector):
        copies.append(Slow(vector))
        return copies[-1]

    scalars = DeferredScalars(copy, limit=3)

    def submit(*numbers):
        scalars.submit([torch.tensor(float(number)) for number in numbers], delivered.append)

    return scalars, copies, delivered, submit


def test_numbers_are_delivered_in_order_when_they_arrive(slow):
    scalars, copies, delivered, submit = slow
    submit(1, 2)
    submit(3)
    submit()
    copies[1].arrived = True
    scalars.poll()
    assert delivered == []
    copies[0].arrived = True
    scalars.poll()
    assert delivered == [[1.0, 2.0], [3.0], ()]
    assert not any(copy.waited for copy in copies)


def test_too_many_copies_under_way_are_given_up_without_waiting(slow):
    scalars, copies, delivered, submit = slow
    for number in range(5):
        submit(number)
    assert (len(copies), scalars.given_up, delivered) == (3, 2, [])
    for copy in copies:
        copy.arrived = True
    scalars.poll()
    assert delivered == [[0.0], [1.0], [2.0], None, None]
    assert not any(copy.waited for copy in copies)
    submit(9)
    assert len(copies) == 4


def test_the_end_waits_for_what_is_under_way(slow):
    scalars, copies, delivered, submit = slow
    submit(1)
    scalars.finish()
    assert delivered == [[1.0]]
    assert copies[0].waited


def test_a_device_that_has_failed_holds_nothing_up(slow):
    scalars, copies, delivered, submit = slow
    submit(1)
    submit()
    copies[0].broken = True
    scalars.finish()
    assert delivered == [None, ()]
    assert scalars.given_up == 1


def test_a_copy_that_cannot_begin_is_given_up():
    def fail(vector):
        raise RuntimeError("CUDA error")

    delivered = []
    scalars = DeferredScalars(fail)
    scalars.submit([torch.tensor(1.0)], delivered.append)
    assert (delivered, scalars.given_up) == ([None], 1)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([torch.tensor(1.5), torch.tensor(2.0)], [1.5, 2.0]),
        ([torch.tensor([1.5]), torch.tensor(2.0), torch.tensor([[3.0]])], [1.5, 2.0, 3.0]),
        ([torch.tensor(1.5, dtype=torch.bfloat16), torch.tensor(2), torch.tensor(True)], [1.5, 2.0, 1.0]),
        ([torch.tensor(1e300, dtype=torch.float64)], [1e300]),
        ([torch.tensor(1.0, requires_grad=True)], [1.0]),
    ],
)
def test_tensors_become_one_vector(tensors, expected):
    vector = as_vector(tensors)
    assert vector.shape == (len(tensors),)
    assert not vector.requires_grad
    assert vector.tolist() == expected
