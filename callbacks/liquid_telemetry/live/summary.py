"""A run in a few words, for the page."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

_LONGEST = 500


@dataclass(frozen=True)
class Summary:
    """What a person wants to know of a run; None where the run has not said. Times are Unix seconds.

    Args:
        run_id: Identifier.
        model: Name of the model, with the slot of a concurrent run.
        state: A job state, or the stage of a run that is no job, or ``unknown``.
        live: Whether its process lives.
        reason: Of the end.
        end: The end, or a stall, in a few words.
        started: When it began.
        seen: When it was last heard of: its last progress, else its start.
        epoch: Current epoch, from zero.
        step: Optimizer steps taken.
        progress: Share of the planned training done.
        eta: Seconds to the planned end.
        loss: Latest training loss.
        val_loss: Latest validation loss.
        accuracy: Latest validation accuracy, else that of training or test.
        ranks: How many processes it has.
        trace_id: Of its trace.
        trace_url: Where its trace can be seen.
        folder: Its run directory.
    """

    run_id: str
    model: str
    state: str
    live: bool = False
    reason: str = ""
    end: str = ""
    started: float | None = None
    seen: float | None = None
    epoch: float | None = None
    step: float | None = None
    progress: float | None = None
    eta: float | None = None
    loss: float | None = None
    val_loss: float | None = None
    accuracy: float | None = None
    ranks: int = 1
    trace_id: str | None = None
    trace_url: str | None = None
    folder: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As an object of JSON, which knows no NaN."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value[:_LONGEST] if isinstance(value, str) else value
