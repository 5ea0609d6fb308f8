"""What a run costs before its first batch and after its last, counted rather than timed."""

import copy
import json
import pickle
from collections import Counter
from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.profilers import Profiler
from tiny import Tiny, TinyData, fit, only_run, run_python, runs

from liquid_telemetry import Telemetry
from liquid_telemetry.metrics import publish
from liquid_telemetry.observe.profiler import ProfilerTap
from liquid_telemetry.spool import ExporterAddress, _launch

IMPORTS = """
import json, sys, warnings

warnings.simplefilter("ignore")
import lightning.pytorch as pl
import torch

told, seen = {}, set(sys.modules)

def tell(step):
    told[step] = sorted(set(sys.modules) - seen)
    seen.update(sys.modules)

import liquid_telemetry

tell("package")
from liquid_telemetry import OpenTelemetrySpans, PrometheusMetrics, StructlogEvents, Telemetry

tell("callbacks")
for kind in (Telemetry, OpenTelemetrySpans, StructlogEvents, PrometheusMetrics):
    kind()
tell("objects")
for kind in (OpenTelemetrySpans, StructlogEvents, PrometheusMetrics):
    kind()._backends()
    tell(kind.__name__)

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        return self.linear(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

quiet = {name: False for name in ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")}
trainer = pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=[Telemetry(port=0)], **quiet)
trainer.fit(Model(), torch.utils.data.DataLoader(torch.zeros(8, 4), batch_size=4))
tell("fit")
print(json.dumps(told))
"""


def test_what_is_imported_and_when(workshop):
    told = json.loads(run_python(IMPORTS).stdout)
    assert told["package"] == ["liquid_telemetry"]
    packages = {step: {name.partition(".")[0] for name in names} for step, names in told.items()}
    theirs = {"opentelemetry", "structlog", "prometheus_client", "rich", "requests", "grpc", "google"}
    assert not packages["callbacks"] & theirs
    assert not {"liquid_telemetry.observe.observer", "liquid_telemetry.spool"} & set(told["callbacks"])
    assert not told["objects"]
    assert packages["OpenTelemetrySpans"] & theirs == {"opentelemetry"}
    assert "structlog" in packages["StructlogEvents"]
    assert packages["PrometheusMetrics"] & theirs == {"prometheus_client"}
    everything = {name for names in told.values() for name in names}
    assert not {
        name for name in everything if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))
    }
    assert not everything & {"requests", "grpc", "liquid_telemetry.metrics.embed"}


ADDRESS = ExporterAddress("http://127.0.0.1:9", "127.0.0.1", 9, 1)


class TestTheExporterProcess:
    def test_it_is_started_without_waiting_and_its_starter_is_collected(self, tmp_path, monkeypatch):
        codes = [None, None, 0]
        started = []
        monkeypatch.setattr(_launch, "_checked", {})
        monkeypatch.setattr(_launch, "_starting", [])
        monkeypatch.setattr(
            _launch.subprocess,
            "Popen",
            lambda *command, **_: started.append(command) or SimpleNamespace(poll=lambda: codes.pop(0)),
        )
        assert _launch.start_exporter(tmp_path)
        for left in (1, 1, 0):
            assert _launch.exporter_address(tmp_path) is None
            assert len(_launch._starting) == left
        assert not _launch.ensure_exporter(tmp_path)
        assert len(started) == 1

    @pytest.fixture
    def waits(self, workshop):
        """Each wait for an exporter process that is started, as it seems; undone before the workshop is."""
        waits = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(publish, "start_exporter", lambda *_: True)
            patch.setattr(publish, "wait_exporter", waits.append)
            yield waits

    def test_a_run_that_knows_its_address_does_not_wait(self, waits, monkeypatch):
        monkeypatch.setattr(publish, "exporter_address", lambda _: ADDRESS)
        fit(Telemetry())
        assert not waits
        assert only_run().manifest["metrics_url"] == "http://127.0.0.1:9/metrics"

    def test_a_run_waits_once_for_one_that_does_not_come(self, waits, tmp_path, capsys):
        callback = Telemetry()
        made = fit(callback)
        assert waits == [tmp_path / "spool"]
        run = only_run()
        told = f"run {run.run_id}: the exporter starts; {tmp_path}/spool/exporter.json will name it"
        assert capsys.readouterr().err.splitlines() == [f"liquid_telemetry: {told}"]
        assert run.manifest["metrics_url"] is None
        made.validate(Tiny(), datamodule=TinyData(), verbose=False)
        assert len(waits) == 1

    def test_a_later_stage_names_the_address(self, waits, capsys, monkeypatch):
        made = fit(Telemetry())
        monkeypatch.setattr(publish, "exporter_address", lambda _: ADDRESS)
        made.test(Tiny(), datamodule=TinyData(), verbose=False)
        assert len(waits) == 1
        assert only_run().manifest["metrics_url"] == "http://127.0.0.1:9/metrics"
        assert capsys.readouterr().err.endswith(
            "live page http://127.0.0.1:9/, metrics http://127.0.0.1:9/metrics\n"
        )


HOOKS_OF_A_BATCH = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class Dispatched(Profiler):
    """Lightning brackets each call of a callback's hook: what is not bracketed was not called."""

    def __init__(self):
        super().__init__()
        self.hooks = Counter()

    def start(self, action_name):
        if action_name.startswith("[Callback]Telemetry"):
            self.hooks[action_name.rpartition(".")[2]] += 1

    def stop(self, action_name):
        pass


@pytest.mark.parametrize(("enabled", "calls"), [(True, 6), (False, 0)])
def test_lightning_calls_two_hooks_for_a_batch_and_none_when_off(enabled, calls):
    profiler = Dispatched()
    fit(Telemetry(enabled=enabled), profiler=profiler)
    assert [profiler.hooks[name] for name in HOOKS_OF_A_BATCH] == [calls, 0, 0, 0, 0, calls]
    assert ("on_validation_batch_end" in profiler.hooks) is enabled


def test_a_subclass_keeps_the_hooks_that_it_uses():
    calls = []

    class Mine(Telemetry):
        def on_after_backward(self, *_):
            calls.append("on_after_backward")

        def on_train_batch_end(self, *args):
            super().on_train_batch_end(*args)
            calls.append("on_train_batch_end")

        def on_before_optimizer_step(self, *args):
            super().on_before_optimizer_step(*args)
            calls.append("on_before_optimizer_step")

    fit(Mine(), Mine(enabled=False))
    assert Counter(calls) == dict.fromkeys(
        ("on_after_backward", "on_train_batch_end", "on_before_optimizer_step"), 12
    )
    assert only_run().metrics["training_batches_total"][("stage", "train"),] == 6


@pytest.mark.parametrize("enabled", [True, False])
def test_a_callback_within_another(enabled):
    class Outer(Callback):
        """Hands on every hook, as composites do."""

        inner = Telemetry(enabled=enabled)

    def hand_on(name):
        return lambda self, *args, **options: getattr(self.inner, name)(*args, **options)

    for name in vars(Callback):
        if name.startswith(("on_", "setup", "teardown")):
            setattr(Outer, name, hand_on(name))
    fit(Outer())
    assert len(runs()) == int(enabled)


@pytest.mark.parametrize("make", [pickle.dumps, copy.deepcopy])
def test_a_trainer_can_be_copied_in_mid_run(make):
    class Copying(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            profilers.append(make(trainer.profiler))

    profilers = []
    fit(Telemetry(), Copying())
    assert len(profilers) == 6
    assert not any(isinstance(one, ProfilerTap) for one in profilers)
