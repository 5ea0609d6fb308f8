"""An open epoch of a stage, and which of its batches get a span."""

from __future__ import annotations

import math

from liquid_telemetry.observe.records import BatchBlock
from liquid_telemetry.tracing.budget import Budget, SlowBatches
from liquid_telemetry.tracing.sink import BatchSpan, OpenSpan


class Epoch:
    """A pass over the data of a stage.

    Args:
        span: Its span.
        budget: Of the trace it is in.
    """

    def __init__(self, span: OpenSpan, budget: Budget) -> None:
        self.span = span
        self.budget = budget
        self.total = self.recorded = 0

    @property
    def kept(self) -> str:
        """Why those batches were recorded that were."""
        return "all" if self.recorded == self.total else "budget spent: slow, skipped and non-finite only"

    def choose(self, block: BatchBlock, slow: SlowBatches) -> list[BatchSpan]:
        """All batches as long as there is room in the trace, then only those that tell something."""
        columns = (block.start_ns, block.end_ns, block.index, block.samples, block.global_step, block.loss)
        phases = block.phase_ns or [()] * len(block)
        spans = list(map(BatchSpan._make, zip(*columns, block.skipped, phases, strict=True)))
        is_slow = [slow.is_slow((span.end_ns - span.start_ns) / 1e9) for span in spans]
        room = self.budget.take(len(spans))
        rest = zip(spans[room:], is_slow[room:], strict=True)
        telling = [span for span, slow in rest if slow or _tells(span)]
        chosen = spans[:room] + telling[: self.budget.take(len(telling), telling=True)]
        self.total += len(spans)
        self.recorded += len(chosen)
        return chosen


def _tells(span: BatchSpan) -> bool:
    return span.skipped or (span.loss is not None and not math.isfinite(span.loss))
