"""An open epoch of a stage, and which of its batches get a span."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from liquid_telemetry.observe.records import BatchBlock
from liquid_telemetry.tracing.budget import Budget, SlowBatches
from liquid_telemetry.tracing.sink import BatchSpan, OpenSpan


class Epoch:
    """A pass over the data of a stage.

    All its batches get spans as long as those to come fit the trace. Else a share of them does, spread evenly, and so
    do those that tell something: slow, skipped and non-finite ones.

    Args:
        span: Its span.
        budget: Of the trace it is in.
        expected: Batches that it has; where nobody knows, as many are expected as have come.
    """

    def __init__(self, span: OpenSpan, budget: Budget, expected: int | None) -> None:
        self.span = span
        self.budget = budget
        self.total = self.recorded = 0
        self._expected = expected
        self._due = 0.0

    @property
    def kept(self) -> str:
        """Why those batches were recorded that were."""
        if self.recorded == self.total:
            return "all"
        return "spread evenly over the budget, and slow, skipped and non-finite ones"

    def choose(self, block: BatchBlock, slow: SlowBatches) -> list[BatchSpan]:
        """Those of the batches that get a span."""
        chosen = self._evenly(len(block))
        telling = slow.among(block.seconds)
        telling |= np.array(block.skipped)
        telling[block.nonfinite] = True
        telling[-1] |= block.unfinished
        besides = np.flatnonzero(telling & ~chosen)
        chosen[besides[: self.budget.take(len(besides), telling=True)]] = True
        self.total += len(block)
        self.recorded += int(chosen.sum())
        return _spans(block, chosen)

    def _evenly(self, count: int) -> NDArray[np.bool_]:
        to_come = self._expected - self.total if self._expected else self.total
        share = min(1.0, self.budget.left / max(to_come, 1))
        due = self._due + share * np.arange(count + 1)
        self._due = due[-1] % 1
        chosen = np.diff(np.floor(due)) > 0
        wanted = np.flatnonzero(chosen)
        chosen[wanted[self.budget.take(len(wanted)) :]] = False
        return chosen


def _spans(block: BatchBlock, chosen: NDArray[np.bool_]) -> list[BatchSpan]:
    where = np.flatnonzero(chosen)
    integers = (block.start_ns, block.end_ns, block.index, block.samples, block.global_step)
    columns = [column[where].tolist() for column in integers]
    loss, skipped = [block.loss[at] for at in where], [block.skipped[at] for at in where]
    phases = block.phase_ns[where].tolist() if len(block.phase_ns) else [()] * len(where)
    return list(map(BatchSpan._make, zip(*columns, loss, skipped, phases, strict=True)))
