"""Where the time goes: every nanosecond belongs to exactly one phase."""

from __future__ import annotations

from array import array
from contextlib import AbstractContextManager
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from liquid_telemetry.observe.clock import Clock
from liquid_telemetry.signals import PHASES

DATA, TRANSFER, FORWARD, BACKWARD, OPTIMIZER, VALIDATION, CHECKPOINT, OTHER = range(len(PHASES))
_LEAVE, BATCH_END = len(PHASES), len(PHASES) + 1
_SEPARATOR = bytes([BATCH_END])
_KNOWN_SHAPES, _LONGEST_SHAPE, _MANY = 64, 256, 4096

Integers = NDArray[np.int64]


class BatchPhases(NamedTuple):
    """What the batches since the last call took, in order."""

    nanoseconds: Integers
    """Time of each phase since the batch before; [batches, phases] in the order of ``PHASES``."""
    optimizer_steps: Integers
    """Optimizer steps of the run up to the end of each batch; [batches]."""


class PhaseClock:
    """Attributes time to phases that nest: an inner phase stops the clock of the outer one.

    While training runs it only notes what began or ended and when; sums are made of hundreds of batches at once, when
    somebody asks. The nanoseconds of all phases add up to the time since the start, whatever is entered or left. Inside
    validation everything is validation: its batches are moved to the device by the same actions as training's.

    Attributes:
        now: Monotonic nanoseconds.
        started: The time at which it was made.
        times: When what is noted in ``marks`` happened.
        marks: Phases that began, ends of phases, ends of batches, not summed up yet.
    """

    def __init__(self, now: Clock) -> None:
        self.now = now
        self.started = self._last = now()
        self.times = array("q")
        self.marks = bytearray()
        self._outer: tuple[int, ...] = (OTHER,)
        self._shapes: dict[tuple[tuple[int, ...], bytes], _Shape] = {}
        self._total = np.zeros(len(PHASES))
        self._since_batch = np.zeros(len(PHASES))
        self._steps = 0
        self._batches: list[BatchPhases] = []

    def section(self, phase: int) -> AbstractContextManager[None]:
        """A reusable context that spends its body's time on one phase."""
        now, time, mark = self.now, self.times.append, self.marks.append

        def enter() -> None:
            time(now())
            mark(phase)

        def leave(*error: object) -> None:
            time(now())
            mark(_LEAVE)

        # Ten of these calls are made for each batch: without self they cost a fifth less.
        kind = type("Section", (), {"__enter__": staticmethod(enter), "__exit__": staticmethod(leave)})
        return cast("AbstractContextManager[None]", kind())

    def enter(self, phase: int) -> None:
        """Begin a phase inside the current one."""
        self._note(phase, self.now())

    def leave(self) -> None:
        """End the current phase and go back to the one around it."""
        self._note(_LEAVE, self.now())

    def end_batch(self, now: int) -> None:
        """A batch of training ended."""
        self.times.append(now)
        self.marks.append(BATCH_END)

    def _note(self, mark: int, now: int) -> None:
        self.times.append(now)
        self.marks.append(mark)

    @property
    def optimizer_steps(self) -> int:
        """Times that the optimizer phase was entered."""
        return self._steps + self.marks.count(OPTIMIZER)

    def snapshot(self, now: int) -> tuple[int, ...]:
        """Nanoseconds of each phase up to ``now``, in the order of ``PHASES``."""
        self._sum_up()
        self._spend(np.array([now - self._last]), _shape_of(self._outer, b""))
        self._last = now
        return tuple(int(total) for total in self._total)

    def restart_batch(self) -> None:
        """Leave the time up to the last snapshot out of the next batch's."""
        self._since_batch[:] = 0

    def compact(self) -> None:
        """Keep what was noted from growing where no batch of training ends, as in a long sanity check."""
        if len(self.times) > _MANY:
            self._sum_up()

    def take_batches(self) -> BatchPhases:
        """The batches that have ended since the last call."""
        self._sum_up()
        parts, self._batches = self._batches, []
        if len(parts) == 1:
            return parts[0]
        nothing = BatchPhases(np.zeros((0, len(PHASES)), np.int64), np.zeros(0, np.int64))
        return BatchPhases(*(np.concatenate(columns) for columns in zip(nothing, *parts, strict=True)))

    def _sum_up(self) -> None:
        """Turn what was noted into sums. A Ctrl-C may have come between the two notes of one mark."""
        count = min(len(self.times), len(self.marks))
        if not count:
            return
        edges = np.empty(count + 1, np.int64)
        edges[0], edges[1:] = self._last, np.frombuffer(self.times.tobytes(), np.int64, count)
        *batches, rest = bytes(self.marks[:count]).split(_SEPARATOR)
        del self.times[:], self.marks[:]
        self._last = int(edges[-1])
        spent = edges[1:] - edges[:-1]
        if batches:
            spent = self._end_batches(batches, spent)
        shape = self._shape(rest)
        self._spend(spent, shape)
        self._outer, self._steps = shape.outer, self._steps + shape.steps

    def _spend(self, spent: Integers, shape: _Shape) -> None:
        nanoseconds = spent @ shape.belongs[: len(spent)]
        self._total += nanoseconds
        self._since_batch += nanoseconds

    def _end_batches(self, batches: list[bytes], spent: Integers) -> Integers:
        """Sums of whole batches; returns the time spent since the last of them."""
        count, shape = len(batches), self._shape(batches[0])
        if shape.outer == self._outer and batches.count(batches[0]) == count:
            used = count * len(shape.belongs)
            nanoseconds = spent[:used].reshape(count, -1) @ shape.belongs
            steps = self._steps + shape.steps * np.arange(1, count + 1)
        else:
            nanoseconds, steps, used = self._end_mixed(batches, spent)
        self._total += nanoseconds.sum(axis=0)
        nanoseconds[0] += self._since_batch
        self._since_batch[:] = 0
        self._steps = int(steps[-1])
        self._batches.append(BatchPhases(nanoseconds.astype(np.int64), steps))
        return spent[used:]

    def _end_mixed(self, batches: list[bytes], spent: Integers) -> tuple[NDArray[np.float64], Integers, int]:
        """Batches of several shapes, all of a shape at once."""
        shapes = []
        for marks in batches:
            shapes.append(shape := self._shape(marks))
            self._outer = shape.outer
        lengths = np.array([len(shape.belongs) for shape in shapes])
        ends = np.cumsum(lengths)
        nanoseconds = np.empty((len(batches), len(PHASES)))
        for shape in set(shapes):
            like = np.array([at for at, other in enumerate(shapes) if other is shape])
            places = (ends - lengths)[like, None] + np.arange(len(shape.belongs))
            nanoseconds[like] = spent[places] @ shape.belongs
        return nanoseconds, self._steps + np.cumsum([shape.steps for shape in shapes]), int(ends[-1])

    def _shape(self, marks: bytes) -> _Shape:
        key = self._outer, marks
        shape = self._shapes.get(key)
        if shape is None:
            shape = _shape_of(*key)
            if len(self._shapes) >= _KNOWN_SHAPES:
                self._shapes.clear()
            if len(marks) <= _LONGEST_SHAPE:
                self._shapes[key] = shape
        return shape


class _Shape:
    """What a sequence of marks means; a loop makes the same few over and over.

    Attributes:
        belongs: 1 where the time before a mark, and that after the last, belongs to a phase; [marks + 1, phases].
            Floats, because only their products are fast; they are exact up to 104 days.
        outer: The phases under way after it, the current one last.
        steps: Optimizer steps within it.
    """

    def __init__(self, current: list[int], outer: tuple[int, ...], steps: int) -> None:
        self.belongs = np.eye(len(PHASES))[current]
        self.outer = outer
        self.steps = steps


def _shape_of(outer: tuple[int, ...], marks: bytes) -> _Shape:
    stack, current = list(outer), [outer[-1]]
    for mark in marks:
        if mark == _LEAVE:
            del stack[max(1, len(stack) - 1) :]
        else:
            stack.append(VALIDATION if stack[-1] == VALIDATION else mark)
        current.append(stack[-1])
    return _Shape(current, tuple(stack), marks.count(OPTIMIZER))
