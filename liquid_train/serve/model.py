"""A trained task as a server uses it: whole sequences, or one step after another.

Shapes: B series, T steps, C channels, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from liquid_train.data.batch import Series, collate
from liquid_train.errors import InputError
from liquid_train.tasks import LiquidClassifier
from liquid_train.tasks.base import SequenceTask
from liquid_train.tasks.load import Trained, load_task
from liquid_train.tasks.network import SequenceNetwork

Kind = Literal["probabilities", "values"]
Outputs = list[list[float]]
"""[B][K]."""

_NO_TARGET = torch.tensor(0)


class Model:
    """Answers for a task; two threads may ask at once.

    Attributes:
        name: Class of the task.
        version: Name of the weights.
        channels: C.
        outputs: K.
        kind: What the outputs are: ``probabilities`` of classes, or ``values``.
    """

    def __init__(self, task: SequenceTask, name: str, version: str) -> None:
        assert task.network is not None, "a task from load_task has its network"
        self.task, self.network = task, task.network
        self.name, self.version = name, version
        self.channels = self.network.layer.input_size
        self.outputs = self.network.linear.out_features
        self.kind: Kind = "probabilities" if isinstance(task, LiquidClassifier) else "values"

    @classmethod
    def load(cls, path: str) -> Model:
        """Load a checkpoint.

        Raises:
            InputError: It is missing or damaged, or a weight is not finite.
        """
        trained: Trained = load_task(Path(path), "serve: --ckpt")
        for name, weight in trained.task.state_dict().items():
            if weight.is_floating_point() and not bool(weight.isfinite().all()):
                raise InputError(
                    f"serve: --ckpt={path}: {name} is not finite; serve a checkpoint that learned"
                )
        model = cls(trained.task, trained.name, trained.version)
        model._warm_up()
        return model

    def _warm_up(self) -> None:
        """Do once what only the first call has to, such as building kernels: no client is to wait for that."""
        nothing = [[0.0] * self.channels] * 2
        for spans in (None, [1.0, 1.0]):
            self.predict([series_of(nothing, spans)], 1)
        Recurrence(self).step(nothing[0], 1.0)

    def predict(self, series: Sequence[Series], most: int) -> Outputs:
        """Return the predictions for series, as ``trainer.predict`` does.

        Args:
            series: What is asked.
            most: Series that go through the network together; only those of like length do.
        """
        answers: Outputs = [[] for _ in series]
        with torch.inference_mode():
            for group in groups([len(one.values) for one in series], most):
                batch = collate([_timed(series[at], series) for at in group])
                predicted = self.task.predict_step(batch, 0).reshape(len(group), -1).tolist()
                for at, answer in zip(group, predicted, strict=True):
                    answers[at] = answer
        return answers


def _timed(one: Series, series: Sequence[Series]) -> Series:
    """With the time spans that it has by default, where others have some."""
    if one.timespans is None and any(other.timespans is not None for other in series):
        return Series(one.values, one.target, torch.ones(len(one.values)))
    return one


def groups(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield positions that are padded together: at most so many, the longest no more than twice the shortest."""
    group: list[int] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) == most or lengths[at] > 2 * lengths[group[0]]):
            yield group
            group = []
        group.append(at)
    if group:
        yield group


def series_of(values: Sequence[Sequence[float]], timespans: Sequence[float] | None) -> Series:
    """Make tensors of one series."""
    spans = None if timespans is None else torch.tensor(timespans, dtype=torch.float32)
    return Series(torch.tensor(values, dtype=torch.float32), _NO_TARGET, spans)


class Recurrence:
    """The state of one stream: what is known after each step is what :meth:`Model.predict` says of the steps so far."""

    def __init__(self, model: Model) -> None:
        self._task, self._network = model.task, model.network
        self._state: Tensor | tuple[Tensor, Tensor] | None = None
        self._total: Tensor | None = None
        self.steps = 0

    def step(self, values: Sequence[float], timespan: float) -> list[float]:
        """Take one step; the state stays as it was where the outcome is not finite.

        Args:
            values: C numbers.
            timespan: Time since the step before.

        Raises:
            OverflowError: The outcome is not finite.
        """
        network: SequenceNetwork = self._network
        with torch.inference_mode():
            inputs = torch.tensor([[list(values)]], dtype=torch.float32)
            output, state = network.layer(inputs, self._state, timespans=timespan)
            total = None
            if network.layer.return_sequences:
                total = output[:, 0] if self._total is None else self._total + output[:, 0]
                output = total / (self.steps + 1)
            answer: list[float] = self._task.predict(network.linear(output)).reshape(-1).tolist()
        if not all(map(math.isfinite, answer)):
            raise OverflowError("the network's output for these values is not finite")
        self._state, self._total = state, total
        self.steps += 1
        return answer
