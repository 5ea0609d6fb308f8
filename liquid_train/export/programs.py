"""A task as two pure functions, for tracing: over whole sequences, and one step with its state carried.

Both run the cell itself, which is the plain path of the layer. Shapes: B batch, T steps, C input channels, H hidden
units, K outputs of the network, O outputs of the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from liquid_train.tasks.base import SequenceTask

BATCH, LENGTH = "batch", "length"


@dataclass(frozen=True)
class Port:
    """An input or an output of a program: names of dynamic dimensions stand for themselves."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


class Program(nn.Module):
    """What both programs share: the network, its state and what is told of it.

    The state is `hidden` [B, H]; with a memory cell also `memory` [B, H]; where the mean over all steps decides also
    `total` [B, O], the sum of the layer's outputs so far, and `steps` [B], their number. All zeros at the start.

    Args:
        task: A task whose network is built.
    """

    file = ""
    """Name of its file, without the ending."""

    def __init__(self, task: SequenceTask) -> None:
        super().__init__()
        assert task.network is not None, "a task from load_task has its network"
        self.network = task.network
        self.predict = task.predict
        self.mixed = self.network.layer.use_mixed
        self.mean = self.network.layer.return_sequences
        with torch.no_grad():
            answer = task.predict(torch.zeros(1, self.network.linear.out_features))
        self.answer: tuple[str | int, ...] = (BATCH, *answer.shape[1:])

    @property
    def state(self) -> tuple[Port, ...]:
        """The state, in its order."""
        layer = self.network.layer
        shapes: dict[str, tuple[str | int, ...]] = {"hidden": (BATCH, layer.state_size)}
        if self.mixed:
            shapes["memory"] = (BATCH, layer.state_size)
        if self.mean:
            shapes |= {"total": (BATCH, layer.output_size), "steps": (BATCH,)}
        return tuple(Port(name, "float32", shape) for name, shape in shapes.items())

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What the program takes, in this order."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it returns: the prediction and the state after the last step."""
        state = (Port(f"new_{port.name}", port.dtype, port.shape) for port in self.state)
        return (Port("prediction", "float32", self.answer), *state)

    def examples(self, batch: int, length: int) -> tuple[Tensor, ...]:
        """Return inputs to trace with."""
        sizes = {BATCH: batch, LENGTH: length}
        shapes = (
            [sizes[size] if isinstance(size, str) else size for size in port.shape] for port in self.inputs
        )
        kinds = [torch.int64 if port.dtype == "int64" else torch.float32 for port in self.inputs]
        return tuple(torch.ones(shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True))

    def _start(self, inputs: Tensor) -> list[Tensor]:
        """The state before the first step; no two tensors are one, as `scan` demands."""
        sizes = (port.shape[1:] for port in self.state)
        return [inputs.new_zeros(inputs.shape[0], *(int(size) for size in shape)) for shape in sizes]

    def _advance(self, x: Tensor, span: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Run one step on [B, C] with spans [B, 1]; return the layer's output [B, O] and the new state."""
        layer = self.network.layer
        carried = tuple(state[: 2 if self.mixed else 1])
        if layer.lstm is not None:
            carried = layer.lstm(x, carried)
        output, hidden = layer.rnn_cell(x, carried[0], span)
        output = layer.fc(output)
        new = [hidden, *carried[1:]]
        if self.mean:
            total, steps = state[-2:]
            new += [total + output, steps + 1.0]
        return output, new

    def _answer(self, output: Tensor, state: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Turn the last output of the layer, or the mean of all, into a prediction; the state goes with it."""
        held = list(state)
        if self.mean:
            output = held[-2] / held[-1][:, None]
        return (self.predict(self.network.linear(output)), *held)


class WholeSequences(Program):
    """`(inputs [B, T, C], timespans [B, T], lengths [B]) -> (prediction, *state)`, for any B and T of at least 1.

    What follows a sequence's length is not read. The state is that at each sequence's end: `OneStep` goes on from it.
    """

    file = "sequence"

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The sequences, the time that each step spans, and how many steps count."""
        channels = self.network.layer.input_size
        return (
            Port("inputs", "float32", (BATCH, LENGTH, channels)),
            Port("timespans", "float32", (BATCH, LENGTH)),
            Port("lengths", "int64", (BATCH,)),
        )

    def forward(self, inputs: Tensor, timespans: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Run over whole sequences."""
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        live = (steps[:, None] < lengths[None, :])[..., None]
        last = inputs.new_zeros(inputs.shape[0], self.network.layer.output_size)

        def step(carry: list[Tensor], now: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            x, span, valid = now
            x, span = torch.where(valid, x, 0.0), torch.where(valid, span, 1.0)
            output, new = self._advance(x, span, carry[1:])
            kept = [
                torch.where(valid if old.dim() > 1 else valid[:, 0], after, old)
                for old, after in zip(carry, [output, *new], strict=True)
            ]
            return kept, []

        steps_first = [inputs.transpose(0, 1), timespans.transpose(0, 1)[..., None], live]
        last, *state = _over_steps(step, [last, *self._start(inputs)], steps_first)
        return self._answer(last, state)


Carry = list[Tensor]


def _over_steps(
    step: Callable[[Carry, Carry], tuple[Carry, Carry]], carry: Carry, steps: Sequence[Tensor]
) -> Carry:
    """Run `step` over the first dimension of `steps`: as one loop of the exported graph, else by hand.

    Called outside an export, `scan` would compile for every shape anew.
    """
    if torch.compiler.is_exporting():
        carry, _ = scan(step, carry, list(steps))
        return carry
    for now in zip(*steps, strict=True):
        carry, _ = step(carry, list(now))
    return carry


class OneStep(Program):
    """`(inputs [B, C], timespans [B], *state) -> (prediction, *state)`: what is known after one more step."""

    file = "step"

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What arrives, the time since what came before, and the state so far."""
        channels = self.network.layer.input_size
        arriving = (Port("inputs", "float32", (BATCH, channels)), Port("timespans", "float32", (BATCH,)))
        return (*arriving, *self.state)

    def forward(self, inputs: Tensor, timespans: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Run one step."""
        output, new = self._advance(inputs, timespans[:, None], state)
        return self._answer(output, new)
