"""Training with telemetry is training without it, to the last bit, and so is the program around it."""

import logging
import os
import random
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import prometheus_client
import pytest
import structlog
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from opentelemetry import trace
from tiny import Tiny, TinyData, build, fit, loader, only_run

from liquid_telemetry import Telemetry


class Shuffled(TinyData):
    def train_dataloader(self):
        return loader(5, shuffle=True)


def train(*callbacks, **options):
    """Weights, optimizer state and all random states after a fit from one seed."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    made = fit(*callbacks, model=Tiny(dropout=0.3), data=Shuffled(), **options)
    name, keys, *position = np.random.get_state()
    return {
        "weights": made.lightning_module.state_dict(),
        "optimizer": made.optimizers[0].state_dict(),
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), position),
        "torch": torch.get_rng_state(),
    }


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
def test_weights_and_random_states_are_the_same(options):
    bare = train(**options)
    observed = train(Telemetry(gradient_norm=True), *build("singles"), **options)
    for part in bare:
        assert_parts_equal(bare[part], observed[part], part)
    assert only_run().record["status"] == "completed"


def assert_parts_equal(bare, observed, part):
    if isinstance(bare, dict):
        torch.testing.assert_close(observed, bare, rtol=0, atol=0, msg=part)
    elif isinstance(bare, torch.Tensor):
        assert torch.equal(bare, observed), part
    else:
        assert bare == observed, part


def test_a_resumed_fit_is_the_same():
    keep = ModelCheckpoint("kept", filename="{step}", every_n_train_steps=3, save_top_k=-1)
    train(keep, enable_checkpointing=True)
    bare = train(ckpt_path="kept/step=3.ckpt", max_epochs=3)
    observed = train(Telemetry(), ckpt_path="kept/step=3.ckpt", max_epochs=3)
    for part in bare:
        assert_parts_equal(bare[part], observed[part], part)


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
