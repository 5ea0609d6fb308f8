"""Whether a written program gives the numbers of the task it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from liquid_train.data import Batch
from liquid_train.export.programs import OneStep, Program
from liquid_train.export.targets import Run
from liquid_train.tasks.base import SequenceTask

ABSOLUTE, RELATIVE = 1e-5, 1e-4
"""Tolerance: a number may differ from the task's own by ABSOLUTE + RELATIVE times that."""
SIZES = ((1, 1), (1, 2), (2, 7), (5, 33), (3, 129))
"""Batches and lengths that are compared; with each every kind of time span."""
STEPS = 9
"""Steps that the streaming program takes, from nothing, with its state carried."""
SPANS = ("ones", "zeros", "irregular")


class MismatchError(Exception):
    """A written program gives other numbers than the task; the message says where and by how much."""


@dataclass(frozen=True)
class Case:
    """One comparison: what was given, and how far apart the numbers are.

    Args:
        program: File of the program without its ending.
        batch: Sequences.
        length: Steps.
        timespans: One of `SPANS`.
        outputs: How many numbers were compared.
        difference: The largest, absolute.
        excess: The largest ratio of a difference to its tolerance; above 1 is a mismatch.
    """

    program: str
    batch: int
    length: int
    timespans: str
    outputs: int
    difference: float
    excess: float

    def to_json(self) -> dict[str, Any]:
        """As an object of JSON."""
        return asdict(self)


def compare(task: SequenceTask, program: Program, run: Run) -> list[Case]:
    """Compare a written program with its task on every case.

    Raises:
        MismatchError: a number is too far away, or not finite where the task's is, or a shape differs.
    """
    check = _steps if isinstance(program, OneStep) else _sequences
    return [_judged(case, program.file) for case in check(task, program, run)]


@dataclass(frozen=True)
class _Pair:
    batch: int
    length: int
    timespans: str
    found: tuple[Tensor, ...]
    expected: tuple[Tensor, ...]


def _judged(pair: _Pair, program: str) -> Case:
    where = f"{program}, batch {pair.batch}, length {pair.length}, {pair.timespans} time spans"
    shapes = [[tuple(tensor.shape) for tensor in side] for side in (pair.found, pair.expected)]
    if shapes[0] != shapes[1]:
        raise MismatchError(f"{where}: shapes {shapes[0]} in place of {shapes[1]}")
    found = torch.cat([tensor.double().flatten() for tensor in pair.found])
    expected = torch.cat([tensor.double().flatten() for tensor in pair.expected])
    difference = (found - expected).abs()
    excess = difference / (ABSOLUTE + RELATIVE * expected.abs())
    same = (found == expected) | (found.isnan() & expected.isnan())
    difference, excess = difference.masked_fill(same, 0.0), excess.masked_fill(same, 0.0)
    if not bool((excess <= 1).all()):  # NaN is no match, too
        raise MismatchError(
            f"{where}: {float(difference.max()):.3g} apart, {float(excess.max()):.3g} times the tolerance"
        )
    return Case(
        program,
        pair.batch,
        pair.length,
        pair.timespans,
        len(found),
        float(difference.max()),
        float(excess.max()),
    )


def _sequences(task: SequenceTask, program: Program, run: Run) -> Iterator[_Pair]:
    random = torch.Generator().manual_seed(0)
    for batch, length in SIZES:
        for kind in SPANS:
            given = _batch(task, batch, length, kind, random)
            assert given.timespans is not None, "_batch makes them"
            found = run((given.inputs, given.timespans, given.lengths))
            yield _Pair(batch, length, kind, found, (_predict(task, given), *_state(task, program, given)))


def _steps(task: SequenceTask, program: Program, run: Run) -> Iterator[_Pair]:
    random = torch.Generator().manual_seed(1)
    for kind in SPANS:
        given = _batch(task, 3, STEPS, kind, random)._replace(lengths=torch.full((3,), STEPS))
        state = program.examples(3, 1)[2:]
        state = tuple(torch.zeros_like(tensor) for tensor in state)
        for step in range(STEPS):
            assert given.timespans is not None, "_batch makes them"
            found = run((given.inputs[:, step], given.timespans[:, step], *state))
            so_far = _first(given, step + 1)
            yield _Pair(3, step + 1, kind, found, (_predict(task, so_far), *_state(task, program, so_far)))
            state = found[1:]


def _batch(task: SequenceTask, batch: int, length: int, kind: str, random: torch.Generator) -> Batch:
    """Sequences of odd lengths, the last one whole; inputs of several sizes; what follows a length is no number."""
    channels = int(task.hparams["input_size"])
    sizes = torch.logspace(-1, 1, batch)[:, None, None]
    lengths = torch.randint(1, length + 1, (batch,), generator=random)
    lengths[-1] = length
    padding = torch.arange(length) >= lengths[:, None]
    inputs = torch.randn(batch, length, channels, generator=random) * sizes
    spans = {
        "ones": torch.ones(batch, length),
        "zeros": torch.zeros(batch, length),
        "irregular": torch.empty(batch, length).log_normal_(0, 1.5, generator=random),
    }[kind]
    return Batch(
        inputs=inputs.masked_fill(padding[..., None], torch.nan),
        lengths=lengths,
        timespans=spans.masked_fill(padding, torch.nan),
        targets=torch.zeros(batch),
    )


def _first(given: Batch, steps: int) -> Batch:
    assert given.timespans is not None, "_batch makes them"
    return Batch(
        given.inputs[:, :steps],
        torch.full_like(given.lengths, steps),
        given.timespans[:, :steps],
        given.targets,
    )


def _predict(task: SequenceTask, given: Batch) -> Tensor:
    with torch.no_grad():
        return task.predict(task(given))


def _state(task: SequenceTask, program: Program, given: Batch) -> tuple[Tensor, ...]:
    """The state at each sequence's end, by the layer itself."""
    layer = program.network.layer
    with torch.no_grad():
        outputs, held = layer(given.inputs, timespans=given.timespans, lengths=given.lengths)
    state = tuple(held) if program.mixed else (held,)
    return (*state, outputs.sum(1), given.lengths.float()) if program.mean else state
