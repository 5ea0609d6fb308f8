"""The tables."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.nn.cases import CHANNELS, INFERENCE, MEMORY, OURS, STEPS, TRAINING, Case, Implementation
from benchmarks.nn.timing import HEAD, measure, ratios
from benchmarks.telemetry.measure import table
from liquid_train.nn.native.library import without_kernels

STREAMS = ("cell with kernels", "stream without", "stream with", "the same, reuse_output", "LSTM", "GRU")

FIRST_CALL = """
import time, torch
from liquid_train.nn import CfC
layer, x = CfC(6, 64), torch.randn(64, 32, 6)
begin = time.perf_counter()
layer(x)
print(time.perf_counter() - begin)
"""


def training(rounds: int) -> None:
    """Time forward and backward passes."""
    _timed("One training step: forward and backward", TRAINING, Implementation.train, rounds)


def inference(rounds: int) -> None:
    """Time forward passes without autograd."""
    _timed("Whole sequences without autograd", INFERENCE, Implementation.infer, rounds)


def steps(rounds: int) -> None:
    """Time one step of the cells, each call with the state of the last one."""
    torch.set_num_threads(1)
    print("## One step at batch 1 without autograd, one thread\n")
    rows = []
    for case in STEPS:
        made = case.build()
        for one in made:
            one.forward = _step(one, case.hidden)
        measure(made, _hundred, rounds)
        rows.append((case.name, *ratios(made, 1e6 / 100)))
    table(["", "ncps, µs", *HEAD], rows)


def _step(one: Implementation, hidden: int) -> Callable[[], Tensor]:
    x = torch.randn(1, CHANNELS)
    if one.name in ("LSTM", "GRU"):
        other: nn.Module = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell}[one.name](CHANNELS, hidden)
        return lambda: other(x)
    cell, state = one.layer.rnn_cell, torch.zeros(1, one.layer.state_size)

    def step() -> Tensor:
        nonlocal state
        output: Tensor
        output, state = cell(x, state, 1.0)
        return output

    return step


def streams(rounds: int) -> None:
    """Time one step of streams beside the cells."""
    torch.set_num_threads(1)
    print("## One step of a stream at batch 1, one thread\n")
    rows = []
    for case in STEPS:
        reference, _, _, cell, *others = case.build()
        for one in (reference, cell, *others):
            one.forward = _step(one, case.hidden)
        layer, x = cell.layer, torch.randn(1, CHANNELS)
        with without_kernels():
            made = [layer.stream()]
        made += [layer.stream(), layer.stream(reuse_output=True)]
        ours = [Implementation("stream", layer, partial(stream.step, x)) for stream in made]
        everything = [reference, cell, *ours, *others]
        measure(everything, _hundred, rounds)
        rows.append((case.name, *ratios(everything, 1e6 / 100)))
    table(["", "ncps, µs", *(f"{name}, times faster" for name in STREAMS)], rows)


def _hundred(one: Implementation) -> None:
    with torch.no_grad():
        for _ in range(100):
            one.forward()


def memory(_: int) -> None:
    """Count what a call keeps for its backward pass."""
    print("## Kept for the backward pass, MiB\n")
    rows = []
    for case in MEMORY:
        kept = []
        for one in case.build()[: 1 + len(OURS)]:
            with one.context():
                kept.append(_kept(one) / 2**20)
        rows.append((case.name, *(f"{size:.1f}" for size in kept), f"{kept[0] / kept[-1]:.1f}"))
    table(["", "ncps", *OURS, "ncps / kernels"], rows)


def _kept(one: Implementation) -> int:
    own = {part.untyped_storage().data_ptr() for part in one.layer.state_dict().values()}
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = (storage.nbytes(), storage)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        one.forward()
    return sum(size for size, _ in storages.values())


def first_call(_: int) -> None:
    """Time the first call of a process, without and with the kernels in the cache."""
    print("## The first call of a process, seconds\n")
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "LIQUID_TRAIN_CACHE": cache}
        command = [sys.executable, "-c", FIRST_CALL]
        times = [
            float(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
            for _ in range(2)
        ]
    table(["kernels", "s"], [("built", f"{times[0]:.1f}"), ("in the cache", f"{times[1]:.2f}")])


def roofline(rounds: int) -> None:
    """Compare the arithmetic done each second with that of a plain matrix product."""
    print("## Arithmetic of a training step, GFLOP/s\n")
    rows = []
    a, b = torch.randn(256, 128), torch.randn(128, 192)
    for threads in _threads():
        torch.set_num_threads(threads)
        best = 2 * 256 * 128 * 192 / min(_timed_product(a, b) for _ in range(20 * rounds))
        for case in TRAINING[:4]:
            one = case.build()[OURS.index("kernels") + 1]
            measure([one], Implementation.train, rounds)
            flops = 3 * 2 * case.B * case.T * (128 * (CHANNELS + 64) + 3 * 64 * 128)
            reached = flops / min(one.seconds)
            rows.append(
                (
                    f"{case.name}, {threads} threads",
                    f"{reached / 1e9:.0f}",
                    f"{best / 1e9:.0f}",
                    f"{reached / best:.0%}",
                )
            )
    table(["", "kernels", "a product of [256, 128] and [128, 192]", "share"], rows)


def _timed_product(a: Tensor, b: Tensor) -> float:
    begin = time.perf_counter()
    for _ in range(10):
        a @ b
    return (time.perf_counter() - begin) / 10


def _timed(title: str, cases: Sequence[Case], run: Callable[[Implementation], None], rounds: int) -> None:
    for threads in _threads():
        torch.set_num_threads(threads)
        print(f"## {title}, {threads} thread{'s' if threads > 1 else ''}\n")
        rows = []
        for case in cases:
            made = case.build()
            measure(made, run, rounds)
            rows.append((case.name, *ratios(made, 1e3)))
        table(["", "ncps, ms", *HEAD], rows)


def _threads() -> list[int]:
    return [1, 2] if (os.cpu_count() or 1) > 1 else [1]
