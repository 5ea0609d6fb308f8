"""A GPU is never waited for in our hooks: CUDA itself is asked, where there is one."""

import json
from collections import Counter

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import Tiny, TinyData, fit, loader, only_run

from liquid_telemetry import Telemetry
from liquid_telemetry.observe.checkpoints import CheckpointWatch
from liquid_telemetry.observe.device import DeviceClock
from liquid_telemetry.observe.training import TrainingWatch

HOOKS = [name for name in dir(Callback) if name.startswith("on_") or name in ("setup", "teardown")]


class Strict(Telemetry):
    """Lets CUDA raise when one of its hooks waits for the device."""

    def setup(self, *arguments, **options):
        super().setup(*arguments, **options)
        for name in HOOKS:
            hook = getattr(self, name)
            if callable(hook):
                setattr(self, name, strict(name, hook))


def strict(name, call):
    def called(*arguments, **options):
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.profiler.record_function(f"ours: {name}"):
                return call(*arguments, **options)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    return called


@pytest.fixture
def strict_contexts(monkeypatch):
    """The same for what is no hook: the contexts that the profiler's tap enters."""
    for kind, name in (
        (CheckpointWatch, "__enter__"),
        (CheckpointWatch, "__exit__"),
        (DeviceClock, "enter"),
        (DeviceClock, "leave"),
    ):
        monkeypatch.setattr(kind, name, strict(f"{kind.__name__}.{name}", getattr(kind, name)))


def waits_in(trace):
    """Calls of the CUDA runtime within our hooks that wait: for the device, or for memory that is not pinned."""
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    ranges = [
        (event["tid"], event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "user_annotation" and event["name"].startswith("ours: ")
    ]
    pageable = {
        event["args"]["correlation"]
        for event in events
        if event.get("cat") == "gpu_memcpy" and "Pageable" in event["name"]
    }
    return [
        event["name"]
        for event in events
        if event.get("cat") in ("cuda_runtime", "cuda_driver")
        and (is_wait(event["name"]) or event.get("args", {}).get("correlation") in pageable)
        and any(tid == event["tid"] and start <= event["ts"] <= end for tid, start, end in ranges)
    ]


def is_wait(name):
    """An event that has passed is synchronized with before its copy is read; that is no wait."""
    return name in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cuCtxSynchronize") or (
        name.startswith("cudaMemcpy") and "Async" not in name
    )


OBSERVING = ("settle", "batch_start", "batch_end", "epoch_end", "before_optimizer_step")


def test_the_mode_is_strict_in_our_hooks_only(monkeypatch, strict_contexts):
    mode, inside, outside = ["default"], set(), set()
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", mode.append)

    class Look(Tiny):
        def training_step(self, batch, batch_idx):
            outside.add(mode[-1])
            return super().training_step(batch, batch_idx)

    def noted(kind, name):
        honest = getattr(kind, name)

        def call(*args, **kwargs):
            inside.add((name, mode[-1]))
            return honest(*args, **kwargs)

        monkeypatch.setattr(kind, name, call)

    for name in OBSERVING:
        noted(TrainingWatch, name)
    keep = ModelCheckpoint("kept", every_n_train_steps=2)
    fit(Strict(gradient_norm=True), keep, model=Look(), enable_checkpointing=True)
    assert outside == {"default"}
    assert inside == {(name, "error") for name in OBSERVING}


def test_waits_are_found_in_a_trace():
    def call(name, ts, correlation=0, tid=1):
        return {
            "ph": "X",
            "cat": "cuda_runtime",
            "name": name,
            "tid": tid,
            "ts": ts,
            "dur": 1,
            "args": {"correlation": correlation},
        }

    hook = {"ph": "X", "cat": "user_annotation", "name": "ours: on_train_end", "tid": 1, "ts": 10, "dur": 10}
    copies = [
        {
            "ph": "X",
            "cat": "gpu_memcpy",
            "name": f"Memcpy DtoH (Device -> {kind})",
            "tid": 7,
            "ts": 30,
            "dur": 1,
        }
        | {"args": {"correlation": correlation}}
        for correlation, kind in ((1, "Pageable"), (2, "Pinned"))
    ]
    fine = [
        call("cudaStreamSynchronize", 9),
        call("cudaStreamSynchronize", 21),
        call("cudaStreamSynchronize", 15, tid=2),
        call("cudaLaunchKernel", 15),
        call("cudaEventSynchronize", 15),
        call("cudaMemcpyAsync", 15, correlation=2),
        {"ph": "i", "name": "cudaDeviceSynchronize"},
    ]
    waits = [
        call("cudaDeviceSynchronize", 11),
        call("cudaMemcpy", 12),
        call("cudaMemcpyAsync", 13, correlation=1),
    ]
    assert waits_in({"traceEvents": [hook, *copies, *fine]}) == []
    assert waits_in({"traceEvents": [hook, *copies, *fine, *waits]}) == [wait["name"] for wait in waits]


class Long(TinyData):
    def train_dataloader(self):
        return loader(100)


def on_gpu(test):
    """Needs a GPU, and what torch has to say of its modes and its profiler is no error."""
    needs = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    return needs(pytest.mark.filterwarnings("ignore::UserWarning")(test))


def fit_on_gpu(**options):
    """A fit with all there is to observe, whose numbers come from the GPU."""
    keep = ModelCheckpoint("kept", every_n_train_steps=25)
    on_one = {"accelerator": "gpu", "devices": 1, "enable_checkpointing": True}
    return fit(Strict(**options), keep, data=Long(), val_check_interval=50, max_epochs=2, **on_one)


@on_gpu
@pytest.mark.parametrize("options", [{}, {"gradient_norm": True}, {"device_phases": True}], ids=str)
def test_no_hook_waits_for_the_gpu(options, strict_contexts):
    made = fit_on_gpu(**options)
    made.test(made.lightning_module, datamodule=Long(), verbose=False)
    run = only_run()
    assert run.metrics["training_batches_total"][("stage", "train"),] == 200
    assert all(event["loss"] is not None for event in run.events_named("training_epoch_completed"))


@on_gpu
def test_a_trace_of_a_run_on_a_gpu_shows_no_wait_in_our_hooks(tmp_path, strict_contexts):
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        fit_on_gpu(gradient_norm=True, device_phases=True)
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    trace = json.loads((tmp_path / "trace.json").read_text())
    hooks = Counter(event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation")
    assert hooks["ours: on_train_batch_start"] == hooks["ours: on_train_batch_end"] == 200
    assert any(event.get("cat") == "cuda_runtime" for event in trace["traceEvents"])
    assert waits_in(trace) == []
