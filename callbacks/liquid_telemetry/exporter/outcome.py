"""How a run ended, from what its ranks said and how they went."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from liquid_telemetry.signals import FAILURE_REASONS, INTERRUPTION_REASONS

if TYPE_CHECKING:
    from liquid_telemetry.exporter.runs import Rank


@dataclass(frozen=True)
class Outcome:
    """The end of a run, counted once.

    Args:
        kind: ``completed``, ``failed`` or ``interrupted``.
        reason: One of the catalogue's; empty when completed.
        died: Rank whose process ended without a word, when that decided.
    """

    kind: str
    reason: str = ""
    died: int | None = None


def decide(ranks: Collection[Rank], *, waited: bool) -> Outcome | None:
    """Return the outcome of a run, or None while it is open (or was the Tuner's).

    A failure that a rank reported comes first; an interruption before deaths, because Lightning kills the other
    ranks after Ctrl-C; a death before success.

    Args:
        ranks: All ranks of the run.
        waited: Whether the dead have waited long enough for what the living may still say.
    """
    for kind, reasons in (("failed", FAILURE_REASONS), ("interrupted", INTERRUPTION_REASONS)):
        said = [rank.record for rank in ranks if rank.record.status == kind]
        if said:
            first = min(said, key=lambda record: record.ended or float("inf"))
            reason = first.reason or ""
            fallback = "unknown" if kind == "failed" else "terminated"
            return Outcome(kind, reason if reason in reasons else fallback)
    dead = [rank for rank in ranks if rank.died]
    if dead and (waited or all(rank.over for rank in ranks)):
        return Outcome("failed", cause_of_death(dead[0]), dead[0].number)
    if all(rank.record.status in ("completed", "tuned") for rank in ranks):
        return Outcome("completed") if any(rank.record.status == "completed" for rank in ranks) else None
    return None


def cause_of_death(rank: Rank) -> str:
    """Return the reason of a failure that the process could not report itself."""
    reason = rank.record.reason or ""
    return reason if reason in FAILURE_REASONS else "unknown"
