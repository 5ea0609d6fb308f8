"""Epochs of several ranks in one trace, without a word between them: each derives the ids from what all know."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from liquid_telemetry.observe.backend import SpanRef
from liquid_telemetry.observe.records import RunInfo
from liquid_telemetry.tracing.budget import SPANS_PER_TRACE, Budget

_LEAST = 100


class Place(NamedTuple):
    """Where the span of an epoch goes."""

    parent: SpanRef | None
    links: tuple[SpanRef, ...] = ()
    span_id: str | None = None
    trace_id: str | None = None


class Ranks:
    """Finds a place for each epoch of a rank, the same trace on all of them.

    Which epochs still fit the run's trace is told by the batches that epochs are to have, not by the spans that were
    written: that differs between ranks.

    Args:
        run: Whose ranks they are.
    """

    def __init__(self, run: RunInfo) -> None:
        self._run = run
        self._limit = self.budget().limit * 9 // 10
        self._planned = 2
        self._fits = True

    def budget(self) -> Budget:
        """What a rank may add to a trace."""
        return Budget(max(_LEAST, SPANS_PER_TRACE // self._run.world_size))

    def plan(self, batches: int) -> None:
        """An evaluation with so many batches is within the epoch under way."""
        if self._fits:
            self._planned += batches + 1

    def place(self, epoch: int, batches: int, root: SpanRef) -> tuple[Place, bool]:
        """Return the place of an epoch that is to have so many batches, and whether that is in the run's trace."""
        self._fits = self._planned + batches + 1 <= self._limit
        self.plan(batches)
        ids = sha256(f"{self._run.trace_id} {self._run.root_span_id} {epoch}".encode()).hexdigest()
        span_id, own_trace = ids[:16], ids[16:48]
        first = SpanRef(root.trace_id if self._fits else own_trace, span_id)
        if self._run.rank == 0:
            return (
                Place(root, (), span_id) if self._fits else Place(None, (root,), span_id, own_trace)
            ), self._fits
        return (Place(root, (first,)) if self._fits else Place(first, (root,))), self._fits
