"""The device is never made to wait."""

import os
import sys
from collections import Counter

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import COMBINATIONS, Tiny, TinyData, build, fit, loader, only_run
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.classification import MulticlassAccuracy

import liquid_telemetry
from liquid_telemetry import Telemetry
from liquid_telemetry.observe import scalars as scalars_module
from liquid_telemetry.observe.scalars import DeferredScalars, as_vector
from liquid_telemetry.observe.training import TrainingWatch
from liquid_telemetry.testing import TickingClock

WAITING = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__")


pytestmark = pytest.mark.usefixtures("one_thread")


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


PACKAGE = os.path.dirname(liquid_telemetry.__file__)  # noqa: PTH120  (as frames spell it)
READING = ("tolist", "numpy", "cpu", "__array__")
"""Ways to read a tensor that are no operators."""


class Asked(TorchDispatchMode):
    """Tells which operators that wait for a device are called beneath our code, by which of our functions."""

    OPERATORS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")

    def __init__(self, patch):
        super().__init__()
        self.ours = Counter()
        for name in READING:
            patch.setattr(torch.Tensor, name, self._told(name, getattr(torch.Tensor, name)))

    def _told(self, name, read):
        def call(*args, **kwargs):
            self._tell(name)
            return read(*args, **kwargs)

        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        to_host = name == "_to_copy" and "device" in (kwargs or {}) and not kwargs.get("non_blocking")
        if to_host or name in self.OPERATORS:
            self._tell(name)
        return func(*args, **(kwargs or {}))

    def _tell(self, name):
        frame = sys._getframe(2)
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        if frame is not None:
            self.ours[name, frame.f_code.co_name] += 1


class Measured(Tiny):
    """Logs a metric of torchmetrics too, and lowers its rate while it trains."""

    def __init__(self):
        super().__init__()
        self.accuracy = MulticlassAccuracy(3)

    def _step(self, batch, stage):
        x, y = batch
        self.accuracy(self(x), y)
        self.log(f"{stage}_measured_acc", self.accuracy, on_step=stage == "train", on_epoch=True)
        return super()._step(batch, stage)

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def train_and_use(*callbacks, model=None):
    """Train, validate within epochs and after them, keep checkpoints, test, predict."""
    keep = ModelCheckpoint("kept", monitor="val_measured_acc", save_top_k=1)
    model = model or Measured()
    made = fit(
        *callbacks, keep, model=model, enable_checkpointing=True, val_check_interval=2, gradient_clip_val=1.0
    )
    made.validate(model, datamodule=TinyData(), verbose=False)
    made.test(model, datamodule=TinyData(), verbose=False)
    made.predict(model, datamodule=TinyData())


class Late:
    """A copy that arrives when it has been asked for three times, read by no way that is counted."""

    made = ()
    read_tensor = torch.Tensor.tolist

    def __init__(self, vector):
        self.vector, self.asked, self.waited = vector, 0, False
        Late.made.append(self)

    def ready(self):
        self.asked += 1
        return self.asked >= 3

    def read(self):
        self.waited = self.asked < 3
        return [float(value) for value in Late.read_tensor(self.vector)]


@pytest.fixture
def late(monkeypatch):
    """Numbers come late, as from a device."""
    monkeypatch.setattr(Late, "made", [])
    monkeypatch.setattr(scalars_module, "begin_copy", Late)
    return Late


ALL = pytest.mark.parametrize("names", COMBINATIONS)


@ALL
def test_no_hook_asks_for_a_number(names, monkeypatch, late):
    with Asked(monkeypatch) as asked:
        train_and_use(*build(names, clock=TickingClock(1000)))
    assert not asked.ours
    assert late.made


def test_no_hook_asks_for_what_is_logged_for_the_progress_bar(monkeypatch, late):
    class Shown(Measured):
        def log(self, name, value, **options):
            super().log(name, value, **{**options, "prog_bar": True})

    with Asked(monkeypatch) as asked:
        train_and_use(Telemetry(clock=TickingClock(1000)), model=Shown())
    assert not asked.ours


@ALL
def test_numbers_are_read_in_one_place(names, monkeypatch):
    with Asked(monkeypatch) as asked:
        train_and_use(*build(names, clock=TickingClock(1000)))
    assert set(asked.ours) == {("tolist", "_floats")}


def test_no_copy_is_waited_for_before_the_end(late):
    waited = []

    class Look(Tiny):
        def on_fit_end(self):
            waited.extend(copy.waited for copy in late.made)

    options = {"model": Look(), "data": Long(), "val_check_interval": 10, "max_epochs": 3}
    fit(Telemetry(clock=TickingClock(10_000_000), gradient_norm=True), **options)
    assert len(waited) > 30
    assert not any(waited)
    run = only_run()
    assert run.metrics["training_batches_total"][("stage", "train"),] == 300
    assert run.metrics["telemetry_dropped_total"].keys() == {
        (("reason", ""), ("signal", signal)) for signal in ("metrics", "tracing", "logging")
    }


QUESTIONS = {
    "float": float,
    "bool": bool,
    "item": lambda tensor: tensor.item(),
    "tolist": lambda tensor: tensor.tolist(),
    "cpu": lambda tensor: tensor.cpu(),
    "array": lambda tensor: tensor.numpy(),
    "nonzero": torch.nonzero,
    "equal": lambda tensor: torch.equal(tensor, tensor),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_would_be_noticed(question, monkeypatch):
    honest = TrainingWatch.settle

    def asking(self, *args, **kwargs):
        QUESTIONS[question](torch.tensor(1.0))
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(TrainingWatch, "settle", asking)
    with Asked(monkeypatch) as asked:
        fit(Telemetry(), max_epochs=1)
    assert any(function == "epoch_start" for _, function in asked.ours)


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
