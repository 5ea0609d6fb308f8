"""How a run ended, from what its ranks said and how they went."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from liquid_telemetry.exporter.cause import cause_of_death, is_its_own
from liquid_telemetry.exporter.exit_status import Exit
from liquid_telemetry.signals import FAILURE_REASONS, INTERRUPTION_REASONS

if TYPE_CHECKING:
    from liquid_telemetry.exporter.runs import Rank

_MAX_TEXT = 300
_NOTED_WITHIN = 0.05  # seconds; those who are ended because another has ended go later than that
_SAY_LITTLE = (Exit(code=0), Exit(code=1))


@dataclass(frozen=True)
class Outcome:
    """The end of a run, counted once.

    Args:
        kind: ``completed``, ``failed`` or ``interrupted``.
        reason: One of the catalogue's; empty when completed.
        died: Rank whose process ended without a word, when that decided.
        text: The end in a few words for people; empty when completed.
        known_by: What told of a death, as in :class:`Cause`.
    """

    kind: str
    reason: str = ""
    died: int | None = None
    text: str = field(default="", compare=False)
    known_by: str = field(default="", compare=False)

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        text = f": {self.text}" if self.text else ""
        return f"{self.kind}{reason}{text}"


def decide(ranks: Collection[Rank], *, waited: bool, stalled: bool = False) -> Outcome | None:
    """Return the outcome of a run, or None while it is open (or was the Tuner's).

    A failure that a rank reported comes first; an interruption before deaths, because Lightning kills the other
    ranks after Ctrl-C; a death before success. But a death that came before what another rank said caused that.

    Args:
        ranks: All ranks of the run.
        waited: Whether the dead have waited long enough for what the living may still say.
        stalled: Whether the run had made no progress for too long.
    """
    dead = [rank for rank in ranks if rank.died]
    said = _first_word(ranks)
    settled = waited or all(rank.process.settled for rank in dead)
    if said is not None:
        causes = [rank for rank in dead if _came_before(rank, said)]
        if not causes:
            return _reported(said)
        return _death(causes, stalled) if settled else None
    if dead and (waited or (settled and not _may_hear_more(ranks, dead))):
        return _death(dead, stalled)
    if all(rank.record.status in ("completed", "tuned") for rank in ranks):
        return Outcome("completed") if any(rank.record.status == "completed" for rank in ranks) else None
    return None


def _first_word(ranks: Collection[Rank]) -> Rank | None:
    for kind in ("failed", "interrupted"):
        said = [rank for rank in ranks if rank.record.status == kind]
        if said:
            return min(said, key=lambda rank: rank.record.ended or float("inf"))
    return None


def _came_before(dead: Rank, said: Rank) -> bool:
    """Whether a process had ended when another rank told of its end; where that is close, who ended by itself."""
    ended, process = said.record.ended, dead.process
    if ended is None or said.record.reason == "user":
        return False
    if process.ended is not None:
        return process.ended <= ended + _NOTED_WITHIN
    if process.seen_alive is None:
        return False
    if process.seen_gone is not None and process.seen_gone < ended:
        return True
    return ended >= process.seen_alive and is_its_own(dead)


def _may_hear_more(ranks: Collection[Rank], dead: Collection[Rank]) -> bool:
    """Whether a rank lives that may speak, or a parent that may pass on what its spawned process died of."""
    return not all(rank.over for rank in ranks) or awaits_parent(dead)


def awaits_parent(dead: Collection[Rank]) -> bool:
    """Whether the parent of a spawned process may tell more than its exit code: of an exception, or of Ctrl-C."""
    if any(rank.record.reason for rank in dead):
        return False
    return any(rank.record.spawned and rank.process.exit in _SAY_LITTLE for rank in dead)


def _reported(rank: Rank) -> Outcome:
    record = rank.record
    reasons, fallback = {
        "failed": (FAILURE_REASONS, "unknown"),
        "interrupted": (INTERRUPTION_REASONS, "terminated"),
    }[record.status]
    reason = record.reason if record.reason in reasons else fallback
    error = ": ".join(filter(None, (record.error_type, record.error_message)))
    return Outcome(record.status, reason, text=_in_words(rank, error or f"{record.status} ({reason})"))


def _death(dead: Collection[Rank], stalled: bool) -> Outcome:
    """Of several the first; of those that went together one that others did not end, then the lowest."""

    def order(rank: Rank) -> tuple[bool, bool, float, int]:
        gone = rank.process.seen_gone or float("inf")
        return rank.record.reason is None, not is_its_own(rank), gone, rank.number

    first = min(dead, key=order)
    cause = cause_of_death(first, stalled=stalled)
    return Outcome(cause.kind, cause.reason, first.number, _in_words(first, how(first)), cause.known_by)


def how(rank: Rank) -> str:
    """Return how a process ended, in words."""
    record = rank.record
    if record.error_type or record.error_message:
        return ": ".join(filter(None, (record.error_type, record.error_message)))
    if rank.process.exit is None:
        return "the process ended without a word"
    memory = ", out of memory" if rank.process.out_of_memory else ""
    return f"{rank.process.exit}{memory}"


def _in_words(rank: Rank, text: str) -> str:
    place = [f"{name} {value}" for name, value in _place(rank) if value is not None]
    line = " ".join(text.split())[:_MAX_TEXT]
    return f"{line} in {', '.join(place)}" if place else line


def _place(rank: Rank) -> list[tuple[str, int | None]]:
    return [("epoch", rank.record.epoch), ("batch", rank.record.batch)]
