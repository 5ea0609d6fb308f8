"""Requests that come at once go through the model together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from traceback import clear_frames

from liquid_train.data.batch import Series
from liquid_train.serve.model import Outputs

Predict = Callable[[Sequence[Series]], Outputs]


@dataclass(frozen=True)
class Answer:
    """The outputs for one request.

    Args:
        outputs: One row for each series.
        waited: Seconds until its batch began.
        together: Series of the batch.
    """

    outputs: Outputs
    waited: float
    together: int


@dataclass(eq=False)
class _Waiting:
    series: Sequence[Series]
    answer: asyncio.Future[Answer]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Collects requests while the model is busy, and for a moment when it is not.

    A request is answered as if it were alone: it never shares padding that would change its numbers, and where a batch
    fails, each of its requests is tried by itself.

    Args:
        predict: The model; called in the executor.
        executor: Its thread.
        most: Series that make a batch full. A request with more is a batch of its own.
        wait: Seconds that the first of a batch waits for others.
    """

    def __init__(self, predict: Predict, executor: Executor, most: int, wait: float) -> None:
        self._predict, self._executor = predict, executor
        self._most, self._wait = most, wait
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._left: _Waiting | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """End; what still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def submit(self, series: Sequence[Series]) -> Answer:
        """Return the answer to one request; what the model raises for it is raised here."""
        waiting = _Waiting(series, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        try:
            return await waiting.answer
        finally:
            del waiting  # an exception would hold it, and it the exception

    async def _work(self) -> None:
        while True:
            batch = await self._collect()
            if batch:
                await self._answer(batch)

    async def _collect(self) -> list[_Waiting]:
        """Take what waits, up to a full batch; those whose client has gone are left out."""
        first, self._left = self._left or await self._queue.get(), None
        batch, size, deadline = [first], len(first.series), time.perf_counter() + self._wait
        while size < self._most:
            more = await self._next(deadline)
            if more is None:
                break
            if size + len(more.series) > self._most:
                self._left = more
                break
            batch.append(more)
            size += len(more.series)
        return [waiting for waiting in batch if not waiting.answer.done()]

    async def _next(self, deadline: float) -> _Waiting | None:
        if not self._queue.empty():
            return self._queue.get_nowait()
        left = deadline - time.perf_counter()
        if left <= 0:
            return None
        try:
            return await asyncio.wait_for(self._queue.get(), left)
        except asyncio.TimeoutError:
            return None

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        series = [one for waiting in batch for one in waiting.series]
        began, loop = time.perf_counter(), asyncio.get_running_loop()
        try:
            outputs = await loop.run_in_executor(self._executor, self._predict, series)
        except Exception as error:
            clear_frames(error.__traceback__)  # their tensors may be what there was no memory for
            if len(batch) == 1:
                _settle(batch[0], error)
                return
            for waiting in batch:
                await self._answer([waiting])
            return
        for waiting in batch:
            own, outputs = outputs[: len(waiting.series)], outputs[len(waiting.series) :]
            _settle(waiting, Answer(own, began - waiting.since, len(series)))


def _settle(waiting: _Waiting, result: Answer | Exception) -> None:
    if waiting.answer.done():
        return
    if isinstance(result, Exception):
        waiting.answer.set_exception(result)
    else:
        waiting.answer.set_result(result)
