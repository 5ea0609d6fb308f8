"""What grows with a run, counted: nothing but its files, and those by a bounded amount for each drain."""

import gc
import logging
import os
import sys
import threading
from collections import Counter
from types import FunctionType, ModuleType, SimpleNamespace

import lightning.pytorch as pl
import psutil
import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import Tiny, TinyData, fit, loader, only_run, workplace
from torch.nn import functional as F
from torch.utils.data import DataLoader

import liquid_telemetry
from liquid_telemetry import Telemetry
from liquid_telemetry.metrics import publish
from liquid_telemetry.observe.loop import StageLoop
from liquid_telemetry.observe.phases import PhaseClock
from liquid_telemetry.testing import TickingClock
from liquid_telemetry.tracing.budget import SPANS_PER_TRACE, Budget
from liquid_telemetry.tracing.own import OwnSink

PACKAGE = os.path.dirname(liquid_telemetry.__file__)  # noqa: PTH120  (as frames spell it)
DRAIN = 256
"""Batches in a second of the clock of these tests, and so in a drain."""
ALLOWED = {"objects": 1 / 64, "blocks": 1 / 8, "bytes": 1 / 8}
"""Growth for each batch that is no leak: Lightning's loop by itself comes to a block in forty batches."""
WRITES = ("write", "open", "replace", "rename", "unlink", "mkdir")


pytestmark = pytest.mark.usefixtures("one_thread")


class Brisk(Tiny):
    """A step of four milliseconds on a clock of its own."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def training_step(self, batch, batch_idx):
        self.clock.advance(1 / DRAIN)
        loss = F.cross_entropy(self.linear(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss


class Repeated(TinyData):
    """The same batch over and over."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def train_dataloader(self):
        return DataLoader([next(iter(loader(1)))] * self.batches, batch_size=None)


class Work:
    """Counts, while it watches, the lines of our code that run and the calls that touch files."""

    def __init__(self, patch):
        self.lines, self.writes = 0, Counter()
        self._watching, self._tracer = False, None
        for name in WRITES:
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name, call):
        def count(*args, **kwargs):
            self.writes[name] += self._watching
            return call(*args, **kwargs)

        return count

    def watch(self):
        self.lines, self.writes, self._watching = 0, Counter(), True
        self._tracer = sys.gettrace()
        sys.settrace(self._trace)

    def stop(self):
        sys.settrace(self._tracer)
        self._watching = False
        return {"lines": self.lines, "writes": dict(self.writes)}

    def _trace(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        self.lines += event == "line"
        return self._trace


class Look(Callback):
    """Looks at what the process holds after drains, and at the work that the last drain's batches have made.

    Args:
        at: Drains to look after.
        work: Counts.
    """

    def __init__(self, at, work):
        self.at, self.work, self.seen = at, work, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        drains, within = divmod(batch_idx + 1, DRAIN)
        if within:
            return
        if drains in self.at:
            self.seen.append(SimpleNamespace(**self.work.stop(), **holdings(trainer.callbacks[0])))
        if drains + 1 in self.at:
            self.work.watch()


def holdings(telemetry):
    """What the process holds; strings where what it says is kept, so as not to be counted the next time."""
    gc.collect()
    counts = {"objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks(), "bytes": size(telemetry)}
    run = only_run()
    series = sorted(f"{name}{labels}" for name, found in run.metrics.items() for labels in found)
    files = sorted(path.name for path in (*run.dir.iterdir(), *run.spool.rglob("*")))
    return {
        **counts,
        "threads": threading.active_count(),
        "descriptors": psutil.Process().num_fds(),
        "series": " ".join(series),
        "files": " ".join(files),
        "events": len(run.events),
        "spans": len(run.spans_named("train batch")),
    }


NOT_OURS = (ModuleType, type, pl.Trainer, pl.LightningModule, Callback, TickingClock, logging.Logger)


def size(telemetry):
    """Bytes of everything that the callback and our modules reach; a buffer that grows is one object."""
    modules = [
        vars(module) for name, module in list(sys.modules.items()) if name.startswith("liquid_telemetry")
    ]
    found, todo = {}, [vars(telemetry), *modules]
    while todo:
        thing = todo.pop()
        if id(thing) in found or isinstance(thing, NOT_OURS):
            continue
        found[id(thing)] = thing
        if isinstance(thing, FunctionType):
            todo += [thing.__closure__, thing.__defaults__]
        else:
            todo += gc.get_referents(thing)
    return sum(sys.getsizeof(thing) for thing in found.values())


def watched_fit(path, *, drains, at):
    """A fit of one epoch with a drain every 256 batches, and what was seen after some of them."""
    clock = TickingClock()
    with workplace(path), pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "SNAPSHOT_EVERY", 0)
        look = Look(at, Work(patch))
        fit(
            Telemetry(clock=clock, gradient_norm=True),
            look,
            model=Brisk(clock),
            data=Repeated(drains * DRAIN),
            max_epochs=1,
            limit_val_batches=0,
        )
        return SimpleNamespace(looks=look.seen, run=only_run())


@pytest.fixture(scope="module")
def long(one_thread, tmp_path_factory):
    """4,096 batches, looked at after 768, 1,024 and all of them."""
    return watched_fit(tmp_path_factory.mktemp("long"), drains=16, at=(3, 4, 16))


class TestALongFit:
    """At batch 1,024 and at batch 4,096 a fit looks the same."""

    def test_it_holds_as_many_objects_and_as_much_memory(self, long):
        _, early, late = long.looks
        for name, allowed in ALLOWED.items():
            assert getattr(late, name) - getattr(early, name) < allowed * 12 * DRAIN, name

    def test_it_has_the_same_threads_descriptors_files_and_series(self, long):
        _, early, late = long.looks
        for name in ("threads", "descriptors", "files", "series", "events"):
            assert getattr(early, name) == getattr(late, name), name

    def test_a_drain_makes_as_much_work(self, long):
        _, early, late = long.looks
        assert late.lines == pytest.approx(early.lines, rel=0.02)
        assert late.writes == early.writes
        assert late.writes["write"] <= DRAIN / 64 + 2  # spans by 64, the metrics, the run's record

    def test_spans_are_written_by_the_drain_that_made_them(self, long):
        _, early, late = long.looks
        (epoch,) = long.run.spans_named("train epoch")
        kept = epoch["attributes"]["liquid_train.batches.recorded"]
        assert late.spans == kept
        assert early.spans == pytest.approx(kept / 4, abs=1)
        assert kept <= SPANS_PER_TRACE

    def test_every_batch_is_counted(self, long):
        metrics = long.run.metrics
        assert metrics["training_batches_total"][("stage", "train"),] == 4096
        assert metrics["training_batch_duration_seconds_count"][("stage", "train"),] == 4096


LEAKS = {
    "objects": (StageLoop, "drain", lambda loop, drained: hoard(loop, list).extend(drained.rows)),
    "blocks": (OwnSink, "batches", lambda sink, ids: hoard(sink, list).extend(ids)),
    "bytes": (PhaseClock, "take_batches", lambda phases, _: hoard(phases, bytearray).extend(bytes(DRAIN))),
}


def hoard(keeper, kind):
    return vars(keeper).setdefault("hoard", kind())


@pytest.mark.parametrize("grows", LEAKS)
def test_a_leak_would_be_seen(tmp_path, monkeypatch, grows):
    kind, name, keep = LEAKS[grows]
    honest = getattr(kind, name)

    def leaking(self, *args):
        result = honest(self, *args)
        keep(self, result)
        return result

    monkeypatch.setattr(kind, name, leaking)
    early, late = watched_fit(tmp_path, drains=4, at=(2, 4)).looks
    assert getattr(late, grows) - getattr(early, grows) >= ALLOWED[grows] * 2 * DRAIN


class Epochs(Callback):
    """Looks at what the process holds after some epochs."""

    def __init__(self, at):
        self.at, self.seen = at, []

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch in self.at:
            gc.collect()
            series = {(name, len(found)) for name, found in only_run().metrics.items()}
            self.seen.append((len(gc.get_objects()), sorted(series), psutil.Process().num_fds()))


def test_many_epochs_look_the_same(monkeypatch):
    monkeypatch.setattr(publish, "SNAPSHOT_EVERY", 0)
    monkeypatch.setattr(Budget.__init__, "__defaults__", (40,))
    look = Epochs((50, 150))
    fit(Telemetry(clock=TickingClock(1000)), look, max_epochs=151, num_sanity_val_steps=0)
    (objects, *early), (objects_later, *late) = look.seen
    assert objects_later - objects < 100
    assert early == late
    run = only_run()
    assert len(run.events) == 1 + 2 * 151 + 1
    sizes = Counter(span["traceId"] for span in run.spans)
    assert max(sizes.values()) <= 40


def test_fits_in_one_process_leave_nothing_behind():
    def fits(count):
        for _ in range(count):
            fit(Telemetry(gradient_norm=True), max_epochs=1)
        gc.collect()
        gc.collect()  # what finalizers of the first pass let go of
        objects = [thing for thing in gc.get_objects() if type(thing) is not logging.LogRecord]  # of pytest
        return len(objects), psutil.Process().num_fds(), threading.active_count()

    fits(20)
    (objects, *early), (objects_later, *late) = fits(1), fits(20)
    assert objects_later - objects < 20
    assert early == late


def test_names_of_actions_are_not_kept_for_ever():
    sizes, clock = [], TickingClock()

    class Naming(Brisk):
        def training_step(self, batch, batch_idx):
            with self.trainer.profiler.profile(f"batch {batch_idx}"):
                if batch_idx in (3 * DRAIN, 6 * DRAIN):
                    sizes.append(size(self.trainer.callbacks[0]))
                return super().training_step(batch, batch_idx)

    fit(
        Telemetry(clock=clock),
        model=Naming(clock),
        data=Repeated(6 * DRAIN + 1),
        max_epochs=1,
        limit_val_batches=0,
    )
    early, late = sizes
    assert late - early < ALLOWED["bytes"] * 3 * DRAIN


@pytest.mark.parametrize("batches", [10, 500])
def test_log_lines_do_not_depend_on_the_number_of_batches(batches):
    clock = TickingClock()
    fit(Telemetry(clock=clock), model=Brisk(clock), data=Repeated(batches), limit_val_batches=0)
    assert [event["event"] for event in only_run().events] == [
        "training_started",
        "training_epoch_completed",
        "training_epoch_completed",
        "training_completed",
    ]


class Broken(Brisk):
    """Its loss is never finite."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * float("nan")


def test_losses_that_are_not_finite_are_told_once_a_second_and_all_counted():
    clock = TickingClock()
    fit(
        Telemetry(clock=clock),
        model=Broken(clock),
        data=Repeated(4 * DRAIN),
        max_epochs=1,
        limit_val_batches=0,
    )
    run = only_run()
    told = run.events_named("training_nonfinite_loss")
    assert [(event["batch"], event["count"]) for event in told] == [
        (0, 1),
        *((seconds * DRAIN, DRAIN) for seconds in (1, 2, 3)),
        (4 * DRAIN - 1, DRAIN - 1),
    ]
    assert run.metrics["training_nonfinite_losses_total"] == {(): 4 * DRAIN}
    assert run.metrics["training_batches_total"][("stage", "train"),] == 4 * DRAIN


@pytest.mark.parametrize("what", ["validations", "checkpoints"])
def test_a_trace_has_a_hard_limit(what, monkeypatch):
    monkeypatch.setattr(Budget.__init__, "__defaults__", (20,))
    often = {
        "validations": {"val_check_interval": 1},
        "checkpoints": {"enable_checkpointing": True, "limit_val_batches": 0},
    }
    save = ModelCheckpoint("kept", filename="{step}", every_n_train_steps=1)
    fit(
        Telemetry(clock=TickingClock(1000)),
        *([save] if what == "checkpoints" else []),
        data=Repeated(80),
        max_epochs=1,
        num_sanity_val_steps=0,
        **often[what],
    )
    sizes = Counter(span["traceId"] for span in only_run().spans)
    assert max(sizes.values()) <= 20 * 5 // 2
