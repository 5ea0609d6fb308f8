"""Every way a run may end: counted once, told in every signal, the user's exception untouched."""

import json
import math
import os
import signal

import psutil
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.tuner import Tuner
from tiny import Tiny, TinyData, fit, only_run, runs, trainer

from liquid_telemetry import (
    NonFiniteLossError,
    OpenTelemetrySpans,
    PrometheusMetrics,
    StructlogEvents,
    Telemetry,
)
from liquid_telemetry.signals import EVENTS

HOOKS = (
    "setup",
    "on_fit_start",
    "on_sanity_check_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_save_checkpoint",
    "on_train_end",
    "on_fit_end",
    "teardown",
)


class BoomError(Exception):
    """The user's."""


class Bomb(Callback):
    """Raises in one hook."""

    def __init__(self, hook, error):
        def explode(*_, **__):
            raise error

        setattr(self, hook, explode)


@pytest.fixture
def error():
    return BoomError("wires crossed")


def explode(error, *callbacks, model=None, data=None, **options):
    """A fit that ends by this very exception."""
    made = trainer(*callbacks, **options)
    with pytest.raises(type(error)) as caught:
        made.fit(model or Tiny(), datamodule=data or TinyData())
    assert caught.value is error
    assert type(made.profiler) is PassThroughProfiler
    return made


def check_failed(run, error, reason="exception"):
    assert (run.record["status"], run.record["reason"]) == ("failed", reason)
    assert (run.record["error_type"], run.record["error_message"]) == (type(error).__name__, str(error))
    (event,) = run.events_named("training_failed")
    assert (event["reason"], event["error_type"], event["error_message"]) == (
        reason,
        type(error).__name__,
        str(error),
    )
    assert "explode" in event["traceback"] or "raise" in event["traceback"]
    check_trace(run, error)


def check_trace(run, error):
    """The trace is whole, and what was open when the run failed says why."""
    spans = run.spans
    known = {span["spanId"] for span in spans}
    assert len(known) == len(spans)
    assert [span["name"] for span in spans if span.get("parentSpanId") not in known] == ["fit started"]
    assert not (run.dir / "unfinished_spans.json").exists()
    (fit,) = run.spans_named("fit")
    assert fit == spans[-1]
    assert fit["status"] == {"code": 2, "message": str(error)}
    assert fit["attributes"]["error.type"] == type(error).__name__
    assert fit["events"][0]["name"] == "exception"


@pytest.mark.parametrize("hook", HOOKS)
def test_another_callback_raises_before_ours(hook, error):
    explode(error, Bomb(hook, error), Telemetry(), enable_checkpointing=True)
    check_failed(only_run(), error)


@pytest.mark.parametrize("hook", HOOKS[:-1])
def test_another_callback_raises_after_ours(hook, error):
    explode(error, Telemetry(), Bomb(hook, error), enable_checkpointing=True)
    check_failed(only_run(), error)


def test_another_teardown_raises_after_ours(error):
    explode(error, Telemetry(), Bomb("teardown", error))
    run = only_run()
    assert run.record["status"] == "failed"
    assert [event["event"] for event in run.events][-2:] == ["training_completed", "training_failed"]


@pytest.mark.parametrize(
    "where", ["training_step", "validation_step", "setup", "configure_optimizers", "backward"]
)
@pytest.mark.parametrize("kinds", [(Telemetry,), (StructlogEvents, OpenTelemetrySpans, PrometheusMetrics)])
def test_the_model_raises(where, kinds, error):
    model = Tiny()

    def explode_here(*_, **__):
        raise error

    setattr(model, where, explode_here)
    explode(error, *(kind() for kind in kinds), model=model)
    check_failed(only_run(), error)


@pytest.mark.parametrize("where", ["prepare_data", "setup", "train_dataloader", "teardown"])
def test_the_data_module_raises(where, error):
    data = TinyData()

    def explode_here(*_, **__):
        raise error

    setattr(data, where, explode_here)
    explode(error, Telemetry(), data=data)
    check_failed(only_run(), error)


def test_a_fit_that_fails_before_its_setup_is_not_the_one_before(error):
    made = trainer(Telemetry(), max_epochs=1)
    made.fit(Tiny(), datamodule=TinyData())
    data = TinyData()

    def explode_here(stage):
        raise error

    data.setup = explode_here
    with pytest.raises(BoomError):
        made.fit(Tiny(), datamodule=data)
    first, second = runs()
    assert first.record["status"] == "completed"
    assert first.events[-1]["event"] == "training_completed"
    check_failed(second, error)


def test_a_failed_fit_and_then_a_good_one_are_two_runs(error):
    callback = Telemetry()
    made = explode(error, callback, Bomb("on_train_epoch_end", error), max_epochs=1)
    del made.callbacks[1]
    made.fit(Tiny(), datamodule=TinyData())
    first, second = runs()
    check_failed(first, error)
    assert second.record["status"] == "completed"


def test_a_failed_test_after_fit_does_not_change_the_fit(error):
    made = trainer(Telemetry(), max_epochs=1)
    made.fit(Tiny(), datamodule=TinyData())
    made.callbacks.append(Bomb("on_test_batch_end", error))
    with pytest.raises(BoomError):
        made.test(Tiny(), datamodule=TinyData(), verbose=False)
    run = only_run()
    assert run.record["status"] == "completed"
    (event,) = run.events_named("training_failed")
    assert event["stage"] == "test"
    assert run.spans_named("test epoch")[0]["status"]["code"] == 2
    assert run.spans_named("fit")[0]["status"] == {}


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (SystemExit(3), "exited"),
        (MemoryError("full"), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("no"), "exception"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_the_reason_of_a_failure(failure, reason):
    explode(failure, Telemetry(), Bomb("on_train_batch_end", failure))
    check_failed(only_run(), failure, reason)


class Diverging(Tiny):
    """Its second loss is not a number."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if batch_idx == 1 else loss


@pytest.mark.parametrize("kind", [Telemetry, OpenTelemetrySpans, StructlogEvents, PrometheusMetrics])
def test_a_nonfinite_loss_ends_the_run_where_asked(kind):
    callbacks = [kind(stop_on_nonfinite=True), Telemetry()]
    text = "the training loss was nan in epoch 0, batch 1; stop_on_nonfinite=True ends the run"
    with pytest.raises(NonFiniteLossError) as caught:
        trainer(*callbacks).fit(Diverging(), datamodule=TinyData())
    assert str(caught.value) == text
    run = only_run()
    check_failed(run, caught.value, "nonfinite")
    assert [event["event"] for event in run.events][-3:] == [
        "training_nonfinite_loss",
        "training_epoch_completed",
        "training_failed",
    ]


def test_a_nonfinite_loss_ends_nothing_otherwise():
    trainer(Telemetry(), max_epochs=1).fit(Diverging(), datamodule=TinyData())
    assert only_run().record["status"] == "completed"


@pytest.mark.filterwarnings("ignore")
def test_an_anomaly_that_the_user_looks_for_is_a_nonfinite_value():
    class Anomalous(Tiny):
        def training_step(self, batch, batch_idx):
            return torch.sqrt(super().training_step(batch, batch_idx) * 0 - 1)

    with pytest.raises(RuntimeError, match="nan values"):
        trainer(Telemetry(), detect_anomaly=True).fit(Anomalous(), datamodule=TinyData())
    assert only_run().record["reason"] == "nonfinite"


PHASES = {
    "training_step": "forward",
    "backward": "backward",
    "optimizer_step": "optimizer",
    "validation_step": "validation",
    "transfer_batch_to_device": "transfer",
    "configure_optimizers": "other",
}


@pytest.mark.filterwarnings("ignore:You have overridden `transfer_batch_to_device`")
@pytest.mark.parametrize("where", PHASES)
def test_everything_known_is_told(where, error):
    model = Tiny()

    def explode_here(*_, **__):
        raise error

    setattr(model, where, explode_here)
    explode(error, Telemetry(), model=model, num_sanity_val_steps=0)
    (event,) = only_run().events_named("training_failed")
    assert event["phase"] == PHASES[where]
    assert (event["known_by"], event["rank"], event["pid"]) == ("exception", 0, os.getpid())
    assert (event["exit_code"], event["signal"], event["signal_name"]) == (None, None, None)
    assert event["memory_process_bytes"] > 1_000_000
    assert event["memory_workers_bytes"] >= 0
    assert json.loads(event["log_tail"][0])["event"] == "training_started"
    assert not set(EVENTS["training_failed"].fields) - event.keys()


@pytest.fixture
def signals():
    """Lightning leaves Ctrl-C switched off after one."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGINT, "user"), (signal.SIGTERM, "terminated")])
def test_a_signal_is_an_interruption(number, reason, signals):
    class Signalled(Tiny):
        def training_step(self, batch, batch_idx):
            if self.global_step == 1:
                os.kill(os.getpid(), number)
            return super().training_step(batch, batch_idx)

    with pytest.raises(SystemExit):
        trainer(Telemetry()).fit(Signalled(), datamodule=TinyData())
    run = only_run()
    assert (run.record["status"], run.record["reason"]) == ("interrupted", reason)
    assert run.events[-1]["event"] == "training_interrupted"
    assert (run.events[-1]["reason"], run.events[-1]["epoch"]) == (reason, 0)
    (fit,) = run.spans_named("fit")
    assert fit["status"] == {}
    assert fit["attributes"]["liquid_train.outcome"] == "interrupted"
    assert fit["attributes"]["liquid_train.reason"] == reason


def test_an_exception_that_another_callback_kept_from_us_is_told_by_the_next_fit(error):
    class Greedy(Callback):
        def on_exception(self, *_):
            raise RuntimeError("mine")

    made = trainer(Greedy(), Telemetry(), Bomb("on_train_epoch_end", error), max_epochs=1)
    with pytest.raises(RuntimeError, match="mine"):
        made.fit(Tiny(), datamodule=TinyData())
    first = only_run()
    assert first.record["status"] == "running"
    del made.callbacks[2]
    made.fit(Tiny(), datamodule=TinyData())
    assert (first.record["status"], first.record["reason"]) == ("failed", "unknown")
    assert first.events[-1]["event"] == "training_failed"
    assert first.spans[-1]["name"] == "fit"
    assert runs()[-1].record["status"] == "completed"


@pytest.mark.filterwarnings("ignore")
def test_a_tuner_that_fails_leaves_nothing_behind(error):
    model, process = Tiny(), psutil.Process()
    fit(max_epochs=1)
    before = process.num_fds()
    made = trainer(Telemetry(), max_epochs=1)
    ours = made.callbacks[:]
    model.training_step = lambda *_: (_ for _ in ()).throw(error)
    with pytest.raises(BoomError):
        Tuner(made).lr_find(model, datamodule=TinyData())
    made.callbacks = ours  # the Tuner has not put them back
    made.fit(Tiny(), datamodule=TinyData())
    first, second = runs()
    assert (first.record["status"], second.record["status"]) == ("tuned", "completed")
    assert process.num_fds() == before


def test_the_failing_batch_is_in_the_trace(error):
    explode(error, Telemetry(), Bomb("on_before_backward", error))
    run = only_run()
    (batch,) = run.spans_named("train batch")
    assert "liquid_train.batch.skipped" not in batch["attributes"]
    assert (batch["status"], batch["attributes"]["error.type"]) == (
        {"code": 2, "message": str(error)},
        type(error).__name__,
    )
    (epoch,) = run.spans_named("train epoch")
    assert epoch["status"]["code"] == 2
    assert batch["parentSpanId"] == epoch["spanId"]
    assert [event["skipped_batches"] for event in run.events_named("training_epoch_completed")] in ([], [0])
    assert set(run.metrics["training_epoch_duration_seconds_count"].values()) == {0.0}
