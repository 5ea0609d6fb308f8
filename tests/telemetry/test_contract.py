"""What holds for every callback, alone and in company."""

import contextlib
import copy
import gc
import os
import pickle
import sys
import threading
import weakref

import psutil
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler
from servers import eventually
from tiny import COMBINATIONS, SINGLES, Tiny, TinyData, build, dataset, fit, loader, only_run, runs, trainer

from liquid_telemetry import OpenTelemetrySpans, PrometheusMetrics, StructlogEvents, Telemetry
from liquid_telemetry.metrics import publish
from liquid_telemetry.spool import _launch, wait_exporter

ALL = pytest.mark.parametrize("names", COMBINATIONS)
EACH = pytest.mark.parametrize("kind", [Telemetry, *SINGLES])
METRICS, SPANS, EVENTS = "metrics", "spans", "events"


def signals(names):
    """The signals that a combination has."""
    of = {PrometheusMetrics: {METRICS}, OpenTelemetrySpans: {SPANS}, StructlogEvents: {EVENTS}}
    return set().union(*(of.get(kind, {METRICS, SPANS, EVENTS}) for kind in COMBINATIONS[names]))


def check_run(run, names, outcome="completed", epochs=2):
    """A run of fit has said the same in every signal it has, and nothing in the others."""
    has = signals(names)
    assert run.manifest["run_id"] == run.run_id
    assert (run.dir / "events.jsonl").exists() is (EVENTS in has)
    assert (run.dir / "traces.jsonl").exists() is (SPANS in has)
    if METRICS in has:
        assert run.record["status"] == outcome
        assert run.metrics["training_batches_total"][("stage", "train"),] == 3 * epochs
    if SPANS in has:
        assert len(run.spans_named("train epoch")) == epochs
        (fit_span,) = run.spans_named("fit")
        assert fit_span["attributes"]["liquid_train.outcome"] == outcome
    if EVENTS in has:
        names = [event["event"] for event in run.events]
        assert (names[0], names[-1]) == ("training_started", f"training_{outcome}")
        assert names.count("training_epoch_completed") == epochs


@ALL
def test_observes_a_fit_once(names):
    fit(*build(names))
    check_run(only_run(), names)


@ALL
def test_two_fits_of_one_trainer_are_two_runs(names):
    callbacks = build(names)
    made = fit(*callbacks, max_epochs=1)
    made.fit_loop.max_epochs = 2
    made.fit(Tiny(), datamodule=TinyData())
    first, second = runs()
    check_run(first, names, epochs=1)
    check_run(second, names, epochs=1)


@EACH
def test_one_callback_in_two_trainers_in_turn(kind):
    callback = kind()
    fit(callback)
    first = callback.run
    fit(callback)
    assert callback.run.run_id != first.run_id
    assert {run.run_id for run in runs()} == {first.run_id, callback.run.run_id}


@EACH
def test_one_callback_in_two_trainers_at_once(kind):
    callback, failed = kind(), []
    meet = threading.Barrier(2)

    class Meeting(Tiny):
        def training_step(self, batch, batch_idx):
            meet.wait(60)
            return super().training_step(batch, batch_idx)

    def train():
        try:
            fit(callback, model=Meeting(), num_sanity_val_steps=0)
        except BaseException as error:
            failed.append(error)
            meet.abort()

    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    name = next(name for name, kinds in COMBINATIONS.items() if kinds == (kind,))
    for run in runs():
        check_run(run, name)
    assert len(runs()) == 2


@EACH
def test_pickles_before_and_after_a_fit(kind):
    class Local(Tiny):  # cannot be pickled, and Lightning hangs its methods on callbacks
        pass

    callback = kind(clock=lambda: 0)
    pickle.dumps(callback)
    fit(callback, model=Local())
    for clone in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        assert clone.run is None
        fit(clone)
        assert clone.run.run_id != callback.run.run_id


def test_collaborators_stay_behind_when_pickled():
    callback = Telemetry(registry=threading.Lock(), tracer_provider=threading.Lock(), logger=threading.Lock())
    pickle.dumps(callback)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jsonargparse, about Lightning
@EACH
def test_constructs_from_yaml(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train"])
    name = f"liquid_telemetry.{kind.__name__}"
    (tmp_path / "config.yaml").write_text(f"""
trainer:
  accelerator: cpu
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: {name}
      init_args: {{model_name: mine, dir: here}}
""")
    LightningCLI(
        Tiny,
        TinyData,
        args=["fit", "--config", "config.yaml"],
        save_config_callback=None,
        seed_everything_default=0,
    )
    (run,) = runs("here")
    assert run.manifest["run_id"] == run.run_id


@ALL
@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluation_alone_makes_a_run_that_is_no_job(names, stage):
    made = trainer(*build(names))
    getattr(made, stage)(Tiny(), datamodule=TinyData(), **({} if stage == "predict" else {"verbose": False}))
    run, has = only_run(), signals(names)
    long = {"validate": "validation"}.get(stage, stage)
    if METRICS in has:
        assert (run.record["job"], run.record["status"]) == (False, "completed")
        assert run.metrics["training_batches_total"] == {(("stage", long),): 2}
        assert run.metrics["training_samples_total"] == {(("stage", long),): 8}
    if SPANS in has:
        assert [span["name"] for span in run.spans] == [f"{long} batch"] * 2 + [f"{long} epoch"]
    if EVENTS in has:
        (event,) = run.events
        assert (event["event"], event["stage"]) == ("validation_completed", long)


@ALL
def test_test_after_fit_continues_the_run(names):
    made = fit(*build(names))
    made.test(Tiny(), datamodule=TinyData(), verbose=False)
    run, has = only_run(), signals(names)
    if METRICS in has:
        assert run.record["status"] == "completed"
        assert run.metrics["training_batches_total"] == {
            (("stage", "train"),): 6,
            (("stage", "validation"),): 4,
            (("stage", "test"),): 2,
        }
        assert run.metrics["model_accuracy"].keys() == {(("dataset", d),) for d in ("train", "val", "test")}
    if SPANS in has:
        assert len(run.spans_named("train epoch")) == 2
        (test,) = run.spans_named("test epoch")
        assert test["parentSpanId"] == run.spans_named("fit started")[0]["spanId"]
        assert len(run.spans_named("fit")) == 1
    if EVENTS in has:
        assert [event["event"] for event in run.events][-2:] == ["training_completed", "validation_completed"]


@ALL
def test_teardown_twice(names):
    callbacks = build(names)
    made = fit(*callbacks)
    for callback in callbacks:
        callback.teardown(made, made.lightning_module, "fit")
        callback.teardown(made, made.lightning_module, "fit")
    check_run(only_run(), names)


@ALL
def test_hooks_without_setup_are_survived(names):
    made = trainer()
    for callback in build(names):
        callback.teardown(made, Tiny(), "fit")
    assert not runs()


@ALL
def test_fast_dev_run_is_no_job(names):
    fit(*build(names), fast_dev_run=True)
    if METRICS in signals(names):
        assert only_run().record["job"] is False


@EACH
def test_disabled_does_nothing(kind, monkeypatch):
    fit(kind(enabled=False))
    monkeypatch.setenv("LIQUID_TELEMETRY_ENABLED", "no")
    fit(kind())
    assert not runs()


@EACH
def test_lightning_calls_no_hook_of_a_batch_of_a_disabled_callback(kind):
    callback = kind(enabled=False)
    fit(callback)
    assert callback.on_train_batch_start is None
    assert callback.on_train_batch_end is None


@EACH
def test_short_hooks_hang_on_the_callback_only_while_it_fits(kind):
    class Look(Callback):
        def on_train_batch_end(self, trainer, *_):
            self.seen = "on_train_batch_end" in vars(trainer.callbacks[0])

    callback, look = kind(), Look()
    fit(callback, look)
    assert look.seen
    assert "on_train_batch_end" not in vars(callback)


def test_options_of_all_callbacks_count_whichever_leads():
    fit(StructlogEvents(), PrometheusMetrics(model_name="mine", dir="there"), OpenTelemetrySpans())
    (run,) = runs("there")
    assert {event["model_name"] for event in run.events} == {"mine"}
    assert run.record["model_name"] == "mine"


def test_a_model_that_makes_new_callbacks_for_each_fit():
    class Equipped(Tiny):
        def configure_callbacks(self):
            return [Telemetry()]

    made = fit(model=Equipped(), max_epochs=1)
    made.fit_loop.max_epochs = 2
    made.fit(Equipped(), datamodule=TinyData())
    for run in runs():
        check_run(run, "telemetry", epochs=1)
    assert len(runs()) == 2


def test_a_callback_that_stays_when_the_leader_has_left():
    made = fit(StructlogEvents(), OpenTelemetrySpans(), max_epochs=1)
    del made.callbacks[0]
    made.fit_loop.max_epochs = 2
    made.fit(Tiny(), datamodule=TinyData())
    first, second = runs()
    assert (first.dir / "events.jsonl").exists()
    check_run(second, "spans", epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 70000}, "port=70000: must be 0 (a free one) to 65535; the default is 9464"),
        ({"otlp_endpoint": "localhost:4317"}, "otlp_endpoint='localhost:4317': must be a URL such as"),
        (
            {"trace_url": "http://jaeger"},
            "trace_url='http://jaeger': must be a URL with {trace_id}, as 'http:",
        ),
        ({"trace_url": "javascript:{trace_id}"}, "must be a URL with {trace_id}"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(options, message):
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
        Telemetry(**options)
    assert message in str(caught.value)


@ALL
def test_leaves_nothing_behind(names):
    process, before = psutil.Process(), None
    for _ in range(2):
        callbacks = build(names)
        made = fit(*callbacks, max_epochs=1)
        assert type(made.profiler) is PassThroughProfiler
        del made, callbacks
        now = (threading.enumerate(), process.num_fds(), dict(os.environ), process.children(recursive=True))
        before = before or now
    assert now == before


def test_the_users_profiler_reports_the_same_actions():
    def actions(*callbacks):
        profiler = SimpleProfiler()
        made = fit(*callbacks, profiler=profiler, max_epochs=1)
        assert made.profiler is profiler
        ours = tuple(kind.__name__ for kind in COMBINATIONS["telemetry-and-singles"])
        return {
            action: len(seconds)
            for action, seconds in profiler.recorded_durations.items()
            if not action.startswith(tuple(f"[Callback]{name}." for name in ours))
        }

    assert actions() == actions(Telemetry())


@pytest.mark.parametrize("fails", [False, True])
def test_a_trainer_in_a_long_lived_process_is_freed(fails):
    class Sometimes(Tiny):
        def training_step(self, batch, batch_idx):
            if fails:
                raise ValueError("no")
            return super().training_step(batch, batch_idx)

    def train():
        made = trainer(Telemetry())
        with contextlib.suppress(ValueError):
            made.fit(Sometimes(), datamodule=TinyData())
        return weakref.ref(made)

    reference = train()
    eventually(lambda: gc.collect() is None or reference() is None, 5)


def test_works_with_forked_workers(exporter):
    class Forking(TinyData):
        def train_dataloader(self):
            return loader(3, num_workers=1)

    fit(Telemetry(port=0), data=Forking(), max_epochs=1)
    check_run(only_run(), "telemetry", epochs=1)


def test_a_run_starts_one_exporter(exporter, monkeypatch):
    started, command = [], _launch._command
    monkeypatch.setattr(_launch, "_command", lambda *options: started.append(options) or command(*options))
    fit(Telemetry(port=0))
    assert len(started) == 1
    assert exporter.address


def test_names_the_address_of_an_exporter_that_takes_longer_to_start_than_the_run(
    exporter, monkeypatch, capsys, caplog
):
    waited = []
    monkeypatch.setattr(publish, "wait_exporter", lambda spool: waited.append(wait_exporter(spool, 20)))
    monkeypatch.setattr(publish, "exporter_address", lambda spool: waited[0] if waited else None)
    callback = Telemetry(port=0)
    with caplog.at_level("INFO", "liquid_telemetry"):
        fit(callback)
    url = f"{exporter.address.url}/metrics"
    assert callback.run.metrics_url == url == runs()[-1].manifest["metrics_url"]
    told = f"run {callback.run.run_id}: live page {exporter.address.url}/, metrics {url}"
    assert [record.getMessage() for record in caplog.records] == [told]
    assert capsys.readouterr().err.splitlines().count(f"liquid_telemetry: {told}") == 1


def test_serves_every_stage_and_names_the_address(exporter):
    callback = Telemetry(port=0)
    fit(callback)
    address = exporter.address
    made = trainer(callback)
    made.validate(Tiny(), torch.utils.data.DataLoader(dataset(), 4), verbose=False)
    assert callback.run.metrics_url == f"{address.url}/metrics" == runs()[-1].manifest["metrics_url"]
