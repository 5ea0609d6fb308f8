"""Telemetry that breaks: the fit finishes, the fault is logged once and counted."""

import gc
import io
import os
import shutil
import socket
import subprocess
import sys
import weakref
from contextlib import suppress

import pytest
from lightning.pytorch import Callback
from tiny import Tiny, TinyData, Written, fit, lines, loader, only_run, samples, trainer

from liquid_telemetry import StructlogEvents, Telemetry
from liquid_telemetry.base import TelemetryCallback
from liquid_telemetry.logs.backend import StructlogBackend
from liquid_telemetry.observe.backend import Correlation
from liquid_telemetry.observe.batches import SampleCounter
from liquid_telemetry.observe.evaluation import EvaluationWatch
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.observer import Observer
from liquid_telemetry.observe.records import BatchBlock, RunInfo, RunStarted
from liquid_telemetry.observe.run import ObserverOptions
from liquid_telemetry.observe.training import TrainingWatch
from liquid_telemetry.spool import _launch
from liquid_telemetry.testing import Recorder, swallowed

faulty = pytest.mark.faulty


def check_finished(made):
    assert made.state.finished
    assert made.global_step == 3 * made.max_epochs


def errors(metrics):
    return {
        dict(key)["signal"]: count
        for key, count in metrics["telemetry_errors_total"].items()
        if dict(key)["reason"]
    }


def check_logged_once(caplog):
    told = [record.getMessage() for record in caplog.records if record.name == "liquid_telemetry"]
    assert told
    assert len(set(told)) == len(told)
    assert all("(training goes on; reported once)" in line and "\n" not in line for line in told)


@faulty
def test_a_run_directory_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "runs").write_text("a file, not a folder")
    check_finished(fit(Telemetry()))
    (record,) = (tmp_path / "spool" / "runs").iterdir()
    counted = errors(samples((record / "0.prom").read_text()))
    assert counted.keys() == {"tracing", "logging", "manifest"}
    assert all(counted.values())
    check_logged_once(caplog)


@faulty
@pytest.mark.parametrize("spool", ["not-a-folder", "open-to-all"])
def test_a_spool_that_cannot_be_used(spool, tmp_path, caplog):
    if spool == "not-a-folder":
        (tmp_path / "spool").write_text("")
    else:
        (tmp_path / "spool").mkdir()
        (tmp_path / "spool").chmod(0o777)
    check_finished(fit(Telemetry()))
    run = only_run()
    assert run.events[-1]["event"] == "training_completed"
    assert run.spans[-1]["name"] == "fit"
    assert "set LIQUID_TELEMETRY_SPOOL" in caplog.text
    check_logged_once(caplog)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@faulty
def test_a_disk_that_fills_up(small_disk, caplog):
    check_finished(fit(Telemetry(dir=str(small_disk)), max_epochs=20))
    (folder,) = small_disk.iterdir()
    assert lines(folder / "events.jsonl")
    assert lines(folder / "traces.jsonl")
    run = Written(folder, spool=small_disk.parent / "spool")
    assert errors(run.metrics)["logging"] > 1
    assert run.record["status"] == "completed"
    check_logged_once(caplog)


@faulty
def test_a_spool_on_a_full_disk(small_disk, caplog, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(small_disk))
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    check_finished(fit(Telemetry()))
    run = only_run()
    assert run.events[-1]["event"] == "training_completed"
    assert "No space left" in caplog.text
    check_logged_once(caplog)


@faulty
def test_a_full_disk_does_not_keep_events_from_the_users_logger(tmp_path):
    (tmp_path / "runs").write_text("a file, not a folder")
    told = []

    class Logger:
        def info(self, event, **_):
            told.append(event)

    fit(StructlogEvents(logger=Logger()), max_epochs=1)
    assert told == [
        "training_started",
        "validation_completed",
        "training_epoch_completed",
        "training_completed",
    ]


class InTheMiddle(Callback):
    """Does something at the end of the first epoch."""

    def __init__(self, action):
        self.action = action

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            self.action()


def test_a_spool_deleted_in_mid_run(tmp_path):
    check_finished(fit(Telemetry(), InTheMiddle(lambda: shutil.rmtree(tmp_path / "spool"))))
    run = only_run()
    assert run.record["status"] == "completed"
    assert run.metrics["training_batches_total"][("stage", "train"),] == 6


def test_an_exporter_killed_in_mid_run_is_started_again(exporter, monkeypatch):
    monkeypatch.setattr(_launch, "_checked", {})
    pids, callback = [], Telemetry(port=0)

    def kill():
        pids.append(exporter.address.pid)
        exporter.stop()
        _launch._checked.clear()  # as if half a minute had passed

    check_finished(fit(callback, InTheMiddle(kill)))
    assert exporter.address.pid not in pids
    assert exporter.totals("Tiny") == {"started/": 1, "completed/": 1}
    made = trainer(callback)
    made.validate(Tiny(), datamodule=TinyData(), verbose=False)
    assert callback.run.metrics_url == f"{exporter.address.url}/metrics"


def test_a_port_that_is_taken_is_told_in_one_line(exporter, caplog):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        check_finished(fit(Telemetry(port=port), InTheMiddle(lambda: exporter.address)))
        assert exporter.address.port != port
        told = [record.getMessage() for record in caplog.records if str(port) in record.getMessage()]
        assert len(told) == 1
        assert only_run().manifest["metrics_url"] == f"{exporter.address.url}/metrics"


class Broken:
    """A backend that raises whatever it is asked."""

    signal = "broken"

    def _raise(self, *_):
        raise RuntimeError("broken on purpose")

    start = handle = outputs = close = _raise


class BrokenCallback(TelemetryCallback):
    def __init__(self):
        super().__init__(True, ObserverOptions())

    def _backends(self):
        return [Broken()]


@faulty
def test_a_backend_that_raises_in_every_call(caplog):
    check_finished(fit(BrokenCallback(), Telemetry()))
    run = only_run()
    assert errors(run.metrics)["broken"] > 10
    assert run.events[-1]["event"] == "training_completed"
    check_logged_once(caplog)


@faulty
def test_backends_that_cannot_even_be_made(caplog, monkeypatch):
    monkeypatch.setattr(Telemetry, "_backends", Broken._raise)
    check_finished(fit(Telemetry()))
    check_logged_once(caplog)


@faulty
@pytest.mark.parametrize(
    ("part", "method"),
    [
        *((Observer, m) for m in ("setup", "announce", "save_checkpoint", "fit_end", "teardown")),
        *((TrainingWatch, m) for m in ("batch_start", "batch_end", "epoch_start", "epoch_end", "settle")),
        *((EvaluationWatch, m) for m in ("start", "batch_start", "batch_end", "end")),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_observer_that_raises(part, method, monkeypatch, caplog):
    monkeypatch.setattr(part, method, Broken._raise)
    check_finished(fit(Telemetry(), enable_checkpointing=True))
    assert swallowed
    check_logged_once(caplog)
    if method not in ("setup", "fit_end", "teardown"):
        assert only_run().record["status"] == "completed"


@faulty
@pytest.mark.parametrize("part", [Observer, TrainingWatch, EvaluationWatch])
def test_a_failure_is_told_by_an_observer_that_raises(part, monkeypatch):
    monkeypatch.setattr(part, "announce" if part is Observer else "abort", Broken._raise)

    class Failing(Tiny):
        def training_step(self, batch, batch_idx):
            raise KeyError("the user's")

    with pytest.raises(KeyError):
        fit(Telemetry(), model=Failing())
    run = only_run()
    assert (run.record["status"], run.record["reason"]) == ("failed", "exception")
    assert run.events[-1]["event"] == "training_failed"


@faulty
def test_a_fault_does_not_keep_the_batch_alive(monkeypatch):
    kept = []

    class Heavy:
        pass

    def fail(*_):
        heavy = Heavy()
        kept.append(weakref.ref(heavy))
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(SampleCounter, "count", fail)
    fit(Telemetry(), limit_val_batches=0)
    gc.collect()
    assert len(kept) == 6
    assert all(reference() is None for reference in kept)


class Six(TinyData):
    def train_dataloader(self):
        return loader(6)


@faulty
def test_a_batch_that_cannot_be_counted_leaves_the_columns_aligned(monkeypatch):
    real, calls = SampleCounter.count, []

    def fail_once(self, batch):
        calls.append(batch)
        if len(calls) == 2:
            raise RuntimeError("broken on purpose")
        return real(self, batch)

    monkeypatch.setattr(SampleCounter, "count", fail_once)
    recorder = Recorder()
    fit(recorder, Telemetry(), limit_val_batches=0, max_epochs=1, data=Six())
    (block,) = recorder.of(BatchBlock)
    columns = (block.start_ns, block.global_step, block.loss, block.skipped, block.phase_ns)
    assert {len(column) for column in columns} == {len(block)}
    assert block.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert list(block.skipped) == [False, True, False, False, False, False]


@faulty
def test_the_users_exception_passes_a_broken_observer(monkeypatch):
    monkeypatch.setattr(Observer, "exception", Broken._raise)
    error = KeyError("the user's")

    class Failing(Tiny):
        def training_step(self, batch, batch_idx):
            raise error

    with pytest.raises(KeyError) as caught:
        fit(Telemetry(), model=Failing())
    assert caught.value is error


@faulty
def test_a_logger_of_the_users_that_raises(caplog):
    class Logger:
        info = Broken._raise

    check_finished(fit(Telemetry(logger=Logger())))
    run = only_run()
    assert run.events[-1]["event"] == "training_completed"
    assert errors(run.metrics)["logging"] == 6
    check_logged_once(caplog)


@pytest.mark.parametrize("kind", [Telemetry, StructlogEvents])
@pytest.mark.parametrize("closed", [False, True])
def test_a_program_without_stderr(kind, closed, monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    check_finished(fit(kind()))
    assert only_run().events


@faulty
def test_faults_of_one_run_are_not_counted_in_the_next(tmp_path):
    blocked = tmp_path / "runs"
    blocked.write_text("")
    callback = Telemetry()
    made = trainer(callback, max_epochs=1)
    made.fit(Tiny(), datamodule=TinyData())
    blocked.unlink()
    made.fit_loop.max_epochs = 2
    made.fit(Tiny(), datamodule=TinyData())
    assert not any(errors(only_run().metrics).values())


def test_names_logged_without_end_are_refused_and_counted():
    class Chatty(Tiny):
        def on_validation_epoch_end(self):
            for at in range(150):
                self.log(f"extra_{at}", float(at))

    fit(Telemetry(), model=Chatty(), num_sanity_val_steps=0, max_epochs=1)
    metrics = only_run().metrics
    assert len(metrics["training_logged_metric"]) == 100
    dropped = metrics["telemetry_dropped_total"][(("reason", "metric_names"), ("signal", "metrics"))]
    assert dropped == 150 + 2 + 4 - 100


@pytest.mark.parametrize("rank", [0, 1])
def test_only_rank_zero_writes_to_the_terminal(rank, tmp_path, capsys):
    backend = StructlogBackend()
    backend._terminal.enabled = True
    run = RunInfo("run", "CfC", tmp_path / "run", "train", True, 0, "0" * 31 + "1", "0" * 15 + "1", rank=rank)
    backend.start(run, Correlation(), Faults())
    backend.handle(RunStarted(0))
    backend.close()
    assert bool(capsys.readouterr().err) is (rank == 0)


def test_a_run_directory_that_is_deleted_is_made_again():
    class Deleting(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                shutil.rmtree("runs")

    fit(Telemetry(), Deleting(), max_epochs=3)
    run = only_run()
    assert run.events[-1]["event"] == "training_completed"
    assert [event["epoch"] for event in run.events_named("training_epoch_completed")] == [1, 2]
    assert run.spans[-1]["name"] == "fit"


def test_a_forked_child_that_leaves_through_the_trainer_tells_nothing():
    class Forking(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 1:
                child = os.fork()
                if child == 0:
                    raise SystemExit(3)
                self.status = os.waitpid(child, 0)[1]

    forking, parent = Forking(), os.getpid()
    try:
        fit(Telemetry(), forking)
    except SystemExit:
        assert os.getpid() != parent
        os._exit(3)
    assert os.waitstatus_to_exitcode(forking.status) == 3
    run = only_run()
    assert run.events_named("training_failed") == []
    assert len(run.spans_named("fit")) == 1
    assert len({span["spanId"] for span in run.spans}) == len(run.spans)
