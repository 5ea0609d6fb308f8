"""Numbers that are still on a device: copied without waiting, read when they have arrived."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Then = Callable[[Sequence[float] | None], None]


class Copy(Protocol):
    """A copy under way."""

    def ready(self) -> bool:
        """Whether reading would not wait."""

    def read(self) -> Sequence[float] | None:
        """The numbers; waits if they are not there yet. None when they were given up.

        Raises:
            RuntimeError: The device has failed.
        """


class DeferredScalars:
    """Hands numbers to their readers in the order of submission, never making the device wait.

    Tensors on the host are read at once. Those on an accelerator are stacked into one, copied without blocking,
    and read by a later ``poll``. When ``limit`` copies are under way a further one is given up: its reader gets
    None, in its turn. So does the reader of a device that has failed, whose every call raises from then on.

    Args:
        copy: Begins to copy a vector to the host.
        limit: Copies that may be under way.
    """

    def __init__(self, copy: Callable[[Tensor], Copy] | None = None, limit: int = 64) -> None:
        self._copy = copy or begin_copy
        self._limit = limit
        self._pending: deque[tuple[Copy, Then]] = deque()
        self.given_up = 0

    def submit(self, tensors: Sequence[Tensor], then: Then) -> None:
        """Call ``then`` with the value of each one-element tensor, now or when a copy has arrived."""
        self.poll()
        self._pending.append((self._begin(tensors), then))
        self.poll()

    def poll(self) -> None:
        """Deliver what has arrived."""
        while self._pending and self._is_ready(self._pending[0][0]):
            self._deliver()

    def finish(self) -> None:
        """Deliver everything, waiting for what is still under way."""
        while self._pending:
            self._deliver()

    @staticmethod
    def _is_ready(copy: Copy) -> bool:
        try:
            return copy.ready()
        except RuntimeError:
            return True

    def _deliver(self) -> None:
        copy, then = self._pending.popleft()
        try:
            values = copy.read()
        except RuntimeError:
            self.given_up += 1
            values = None
        then(values)

    def _begin(self, tensors: Sequence[Tensor]) -> Copy:
        if not tensors:
            return HostCopy(())
        if len(self._pending) >= self._limit:
            self.given_up += 1
            return HostCopy(None)
        try:
            return self._copy(as_vector(tensors))
        except RuntimeError:
            self.given_up += 1
            return HostCopy(None)


def as_vector(tensors: Sequence[Tensor]) -> Tensor:
    """One-element tensors as one vector on the device of the first; [N]."""
    with torch.no_grad():
        try:
            return torch.stack(tuple(tensors)).reshape(-1)
        except (RuntimeError, TypeError):
            device = tensors[0].device
            return torch.cat([tensor.reshape(-1)[:1].to(device, torch.float32) for tensor in tensors])


class HostCopy:
    """Numbers that are on the host already, or None for numbers given up."""

    def __init__(self, values: Sequence[float] | None) -> None:
        self._values = values

    def ready(self) -> bool:
        """Always."""
        return True

    def read(self) -> Sequence[float] | None:
        """The numbers."""
        return self._values


class CudaCopy:
    """A copy into pinned memory, with an event recorded behind it on the same stream."""

    def __init__(self, vector: Tensor) -> None:
        self._host = vector.to("cpu", non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(vector.device))

    def ready(self) -> bool:
        """Asks the event; never blocks."""
        return bool(self._event.query())

    def read(self) -> Sequence[float]:
        """The numbers; waits for the event."""
        self._event.synchronize()
        return _floats(self._host)


def begin_copy(vector: Tensor) -> Copy:
    """Begin to copy a vector to the host; what is not on CUDA is read at once."""
    if vector.device.type == "cuda":
        return CudaCopy(vector)
    return HostCopy(_floats(vector))


def _floats(vector: Tensor) -> Sequence[float]:
    values: list[float] = vector.tolist()
    return values if vector.is_floating_point() else [float(value) for value in values]
