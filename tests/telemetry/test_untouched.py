"""Training with telemetry is training without it, to the last bit, and so is the program around it."""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import prometheus_client
import pytest
import structlog
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import Profiler
from opentelemetry import trace
from tiny import SINGLES, Tiny, TinyData, build, dataset, fit, loader, only_run
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from witness import Witness, differences

from liquid_telemetry import Telemetry
from liquid_telemetry.observe.profiler import ProfilerTap


class Shuffled(TinyData):
    def train_dataloader(self):
        return loader(5, shuffle=True)


class Noisy(Dataset):
    """Rows with noise of all random generators, drawn where the row is loaded."""

    def __init__(self):
        self.rows = dataset(20)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        x, y = self.rows[at]
        return x + torch.rand(4) + random.random() + np.random.random(), y


class Drawn(TinyData):
    """Shuffled by a generator of its own, loaded by workers."""

    def __init__(self, workers):
        super().__init__()
        self.workers = workers
        self.generator = torch.Generator().manual_seed(3)

    def train_dataloader(self):
        options = {"shuffle": True, "generator": self.generator, "num_workers": self.workers}
        return DataLoader(Noisy(), batch_size=4, **options)


class Measured(Tiny):
    """Logs a metric of torchmetrics in every stage, at steps and over epochs."""

    def __init__(self, dropout):
        super().__init__(dropout=dropout)
        self.accuracy = MulticlassAccuracy(3)

    def _step(self, batch, stage):
        self.accuracy(self(batch[0]), batch[1])
        self.log(f"{stage}_measured", self.accuracy, on_step=True, on_epoch=True, prog_bar=True)
        return super()._step(batch, stage)


class Kept(DummyLogger):
    """Keeps what Lightning hands to a logger."""

    def __init__(self):
        super().__init__()
        self.metrics = []

    def log_metrics(self, metrics, step):
        self.metrics.append((step, dict(metrics)))


def train(*callbacks, data=None, model=Tiny, **options):
    """What a fit from one seed has moved, logged and left to be drawn."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    data, logger, witness = data or Shuffled(), Kept(), Witness()
    made = fit(
        *callbacks,
        witness,
        model=model(dropout=0.3),
        data=data,
        logger=logger,
        log_every_n_steps=1,
        **options,
    )
    return {
        **Witness.last,
        "history": logger.metrics,
        "bar": made.progress_bar_metrics,
        "drawn next": [random.random(), np.random.random(), torch.rand(1), *data.train_dataloader()],
    }


def observing():
    return Telemetry(gradient_norm=True), *build("singles")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
        {"val_check_interval": 2},
        {"precision": "bf16-mixed"},
        {"detect_anomaly": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_weights_random_states_and_what_is_logged_are_the_same(options):
    bare = train(**options)
    assert differences(bare, train(*observing(), **options)) == []
    assert only_run().record["status"] == "completed"


def test_metrics_that_lightning_computes_when_they_are_read_are_the_same():
    options = {"val_check_interval": 2, "max_epochs": 3}
    bare = train(model=Measured, **options)
    assert differences(bare, train(*observing(), model=Measured, **options)) == []
    assert sum("train_measured_step" in metrics for _, metrics in bare["history"]) == 15


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_loader_and_its_workers_draw_is_the_same(workers):
    bare = train(data=Drawn(workers))
    assert differences(bare, train(*observing(), data=Drawn(workers))) == []


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: torch.rand(1)])
def test_one_number_drawn_would_be_seen(draw):
    class Drawing(Callback):
        def on_train_end(self, *_):
            draw()

    assert differences(train(), train(Drawing()))


@pytest.mark.parametrize("step", [3, 5], ids=["within-an-epoch", "between-epochs"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_fit_is_the_same(step, accumulate):
    options = {"accumulate_grad_batches": accumulate, "max_epochs": 4}
    keep = ModelCheckpoint("kept", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    train(*observing(), keep, enable_checkpointing=True, **options)
    resumed = {"ckpt_path": f"kept/step={step}.ckpt", **options}
    bare = train(**resumed)
    assert differences(bare, train(*observing(), **resumed)) == []


def test_a_checkpoint_holds_the_same_but_for_our_key():
    def kept(*callbacks):
        keep = ModelCheckpoint("kept", monitor="val_loss", enable_version_counter=False, filename="best")
        train(*callbacks, keep, enable_checkpointing=True)
        return torch.load("kept/best.ckpt", weights_only=True)

    bare, observed = kept(), kept(*observing())
    run = only_run()
    assert observed.pop("liquid_telemetry") == {"run_id": run.run_id, "trace_id": run.manifest["trace_id"]}
    assert differences(bare, observed) == []


def test_a_checkpoint_made_under_telemetry_opens_without_it():
    keep = ModelCheckpoint("kept", filename="{step}", save_top_k=-1)
    fit(Telemetry(), keep, enable_checkpointing=True, max_epochs=1)
    saved = torch.load("kept/step=3.ckpt", weights_only=True)
    assert saved["liquid_telemetry"]["run_id"] == only_run().run_id
    made = fit(ckpt_path="kept/step=3.ckpt", max_epochs=2)
    assert made.global_step == 6


def program():
    """What a library must leave alone."""
    root, ours = logging.getLogger(), logging.getLogger("liquid_telemetry")
    return {
        "environment": dict(os.environ),
        "tracer provider": trace.get_tracer_provider(),
        "registry": list(prometheus_client.REGISTRY._names_to_collectors),
        "structlog": (structlog.is_configured(), structlog.get_config()),
        "logging": [(logger.level, logger.handlers[:], logger.propagate) for logger in (root, ours)],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        "excepthook": (sys.excepthook, threading.excepthook),
        "path": sys.path[:],
        "directory": Path.cwd(),
        "umask": [os.umask(mask) for mask in (0o22, 0o22)][1],
        "threads": threading.enumerate(),
    }


def test_the_program_around_is_left_alone():
    fit()
    before = program()
    fit(Telemetry(), *build("singles"))
    assert program() == before


SWITCHES = {
    "option": {},
    **{f"environment-{word}": {"LIQUID_TELEMETRY_ENABLED": word} for word in ("0", "false", "OFF", "no")},
}


class Actions(Profiler):
    """Counts the hooks of our callbacks that Lightning calls: it brackets each call."""

    def __init__(self):
        super().__init__()
        self.hooks = Counter()

    def start(self, action_name):
        if action_name.startswith(tuple(f"[Callback]{kind.__name__}" for kind in (Telemetry, *SINGLES))):
            self.hooks[action_name.rpartition(".")[2]] += 1

    def stop(self, action_name):
        pass


@pytest.fixture
def started(monkeypatch):
    """Threads and processes that are started."""
    found = []
    for kind, name in ((threading.Thread, "start"), (subprocess.Popen, "__init__"), (os, "fork")):
        honest = getattr(kind, name)

        def call(*args, _honest=honest, _name=f"{kind.__name__}.{name}", **kwargs):
            found.append(_name)
            return _honest(*args, **kwargs)

        monkeypatch.setattr(kind, name, call)
    return found


@pytest.mark.parametrize("switch", SWITCHES)
def test_off_is_off(switch, monkeypatch, started, tmp_path):
    for name, word in SWITCHES[switch].items():
        monkeypatch.setenv(name, word)
    bare = train()
    off = {"enabled": False} if switch == "option" else {}
    profiler, taps = Actions(), []

    class Look(Tiny):
        def on_train_batch_start(self, batch, batch_idx):
            taps.append(isinstance(self.trainer.profiler, ProfilerTap))

    callbacks = [kind(**off) for kind in (Telemetry, *SINGLES)]
    found = train(*callbacks, model=Look, profiler=profiler)
    assert differences(bare, found) == []
    assert [callback.run for callback in callbacks] == [None] * 4
    assert not started
    assert not list(tmp_path.iterdir())
    assert taps == [False] * 10
    assert not [hook for hook in profiler.hooks if "_batch_" in hook or "optimizer" in hook or "ward" in hook]


def test_off_writes_nothing_into_a_checkpoint():
    keep = ModelCheckpoint("kept", save_last=True)
    train(Telemetry(enabled=False), keep, enable_checkpointing=True)
    assert "liquid_telemetry" not in torch.load("kept/last.ckpt", weights_only=True)


def test_off_while_testing_and_predicting(started, tmp_path):
    made = fit(Telemetry(enabled=False), profiler=(profiler := Actions()))
    made.validate(made.lightning_module, datamodule=TinyData(), verbose=False)
    made.test(made.lightning_module, datamodule=TinyData(), verbose=False)
    made.predict(made.lightning_module, datamodule=TinyData())
    assert profiler.hooks["on_predict_start"] == 1
    assert not [hook for hook in profiler.hooks if "_batch_" in hook]
    assert not started
    assert not list(tmp_path.iterdir())
