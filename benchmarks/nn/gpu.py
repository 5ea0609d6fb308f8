"""A training step on a GPU, beside ``ncps`` with and without CUDA graphs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from benchmarks.nn.cases import CHANNELS, GPU, Case, Implementation
from benchmarks.nn.timing import HEAD, measure, ratios
from benchmarks.telemetry.measure import table


def gpu(rounds: int) -> None:
    """Time forward and backward passes on a GPU, if there is one."""
    if not torch.cuda.is_available():
        print("No GPU here: nothing is measured on one.\n")
        return
    print(f"## One training step: forward and backward, {torch.cuda.get_device_name()}\n")
    rows = []
    for case in GPU:
        made = case.build("cuda")
        if not case.spans:
            made.append(_graphed(case, made[0]))
        measure(made, Implementation.train, rounds)
        rows.append((case.name, *ratios(made, 1e3)))
    table(["", "ncps, ms", *HEAD, "ncps in CUDA graphs, times faster"], [(*row, "")[:8] for row in rows])


def _graphed(case: Case, reference: Implementation) -> Implementation:
    """Return the reference with its launches recorded once, for batches of one shape."""
    x = torch.randn(case.B, case.T, CHANNELS, device="cuda")
    layer: Any = torch.cuda.make_graphed_callables(copy.deepcopy(reference.layer), (x,))
    return replace(reference, name="graphs", layer=layer, forward=lambda: layer(x)[0], seconds=[])
