"""Timing calls in blocks that take turns, so that what slows the machine down for a while slows all of them down."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from liquid_train.data import Batch
from liquid_train.tasks.base import SequenceTask

REFERENCE = "reference"
"""Name of work that no change of the model makes slower: it tells how fast the machine is just now."""
BLOCK_NS = 40_000_000
"""So long the calls of a block are meant to take together."""
FEWEST, MOST = 3, 200
"""Calls in a block."""
LEAST_ROUNDS = 5
"""Rounds of blocks that are made however long they take."""

clock: Callable[[], int] = time.perf_counter_ns
"""Monotonic nanoseconds."""


@dataclass(frozen=True)
class Case:
    """Inputs of one shape."""

    batch: int
    length: int

    @property
    def name(self) -> str:
        """As people write it: batch x length."""
        return f"{self.batch}x{self.length}"


def inference(task: SequenceTask, case: Case, seed: int) -> Callable[[], None]:
    """Return a call that runs the task on the same inputs each time: irregular time spans, no padding."""
    random = torch.Generator().manual_seed(seed)
    shape = (case.batch, case.length)
    given = Batch(
        inputs=torch.randn(*shape, int(task.hparams["input_size"]), generator=random),
        lengths=torch.full((case.batch,), case.length),
        timespans=torch.empty(shape).exponential_(generator=random),
        targets=torch.zeros(case.batch),
    )

    def call() -> None:
        with torch.inference_mode():
            task.predict(task(given))

    return call


_MATRIX = np.random.default_rng(0).standard_normal((96, 96), dtype=np.float32)


def reference() -> None:
    """A few small products and some interpreter, as inference on small networks is: half a millisecond or so."""
    value = _MATRIX
    for _ in range(12):
        value = np.tanh(value @ _MATRIX)
    sum(index * index for index in range(2000))


def measure(
    calls: Mapping[str, Callable[[], None]], blocks: int, warmup: int, seed: int, patience: float = 60.0
) -> dict[str, list[list[float]]]:
    """Time every call.

    Args:
        calls: By name.
        blocks: How many blocks each gets; in each round of blocks they come in another order.
        warmup: Calls before the first block that are not timed.
        seed: Of the order.
        patience: Seconds after which no further round begins.

    Returns:
        Seconds of every call, by name and block.
    """
    sizes = {name: _warm(call, warmup) for name, call in calls.items()}
    order = np.random.default_rng(seed)
    seconds: dict[str, list[list[float]]] = {name: [] for name in calls}
    end = clock() + int(patience * 1e9)
    with _undisturbed():
        for number in range(blocks):
            if number >= LEAST_ROUNDS and clock() > end:
                break
            for name in order.permutation(list(calls)).tolist():
                seconds[name].append([_time(calls[name]) / 1e9 for _ in range(sizes[name])])
            gc.collect()
    return seconds


def _warm(call: Callable[[], None], warmup: int) -> int:
    """Call it until it is warm; return how many calls make a block."""
    taken = [_time(call) for _ in range(max(warmup, 1))]
    usual = max(median(taken[len(taken) // 2 :]), 1)
    return int(min(max(BLOCK_NS // usual, FEWEST), MOST))


def _time(call: Callable[[], None]) -> int:
    began = clock()
    call()
    return clock() - began


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection within a block; what is there already is left alone by those between them."""
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
