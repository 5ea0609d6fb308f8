"""What each rank of a run publishes of itself: by rank, or, of very many, the least, the middle and the greatest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from liquid_telemetry.exporter.merge import Exposition, slot_of
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.signals import RANK_METRICS, RANK_STATS

MAX_RANKS = 16
"""World size up to which ranks are told apart."""

_STATS: dict[str, Callable[[Iterable[float]], float]] = dict(zip(RANK_STATS, (min, median, max), strict=True))


def add_ranks(exposition: Exposition, runs: Iterable[Run]) -> None:
    """Add the series of the ranks that live on this host."""
    for run in runs:
        if run.shown:
            labels = {"model_name": run.label, **slot_of(run)}
            for name in RANK_METRICS:
                for (label, value), seconds in _series(run, name).items():
                    exposition.put(name, seconds, **labels, **{label: value})


def _series(run: Run, name: str) -> dict[tuple[str, str], float]:
    """Values by label and its value."""
    found = {
        number: value
        for number, rank in run.ranks.items()
        if rank.alive and (value := rank.snapshot.value(name)) is not None
    }
    if not found:
        return {}
    if run.record.world_size <= MAX_RANKS:
        return {("rank", str(number)): value for number, value in found.items()}
    return {("stat", stat): of(found.values()) for stat, of in _STATS.items()}
