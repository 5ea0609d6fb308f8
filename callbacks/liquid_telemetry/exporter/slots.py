"""Slots: what tells concurrent runs of one model apart."""

from __future__ import annotations

from collections.abc import Iterable

from liquid_telemetry.exporter.runs import Run


def assign(run: Run, others: Iterable[Run], wanted: int | None) -> list[Run]:
    """Give a run the slot it had, else the lowest that no live run of its model has.

    The first of several concurrent runs has slot 0, which carries no label. An ended run keeps its slot until
    it has been scraped, unless a new run of the model needs it: a crash loop does not count up slots.

    Returns:
        The ended runs that the new one replaces.
    """
    rivals = [
        other for other in others if other.slot is not None and not other.retired and other.label == run.label
    ]
    taken = {other.slot for other in rivals if other.live}
    if wanted is None or wanted in taken:
        wanted = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    run.slot = wanted
    return [other for other in rivals if other.slot == wanted]
