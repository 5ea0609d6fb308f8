"""Counters and histograms without ``model_name``: sums over all runs, ended ones included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name of a sample and its labels, sorted."""

MAX_SERIES = 2000
MAX_SOURCES = 64


class Sums:
    """Monotonic sums of counters that begin at zero in every source.

    A source is one rank of one run. Its last values are kept, so that a run which goes on later is not counted
    twice; a value below the last one means that the source began again. The values of old sources are folded into
    a base. ``refused`` counts what found no place among ``MAX_SERIES`` series.
    """

    def __init__(self) -> None:
        self.refused = 0
        self._base: dict[Series, float] = {}
        self._last: dict[str, dict[Series, float]] = {}

    def add(self, series: Series, amount: float = 1.0) -> bool:
        """Add to the base; return False when there is no place."""
        if series not in self._base and len(self._base) >= MAX_SERIES:
            self.refused += 1
            return False
        self._base[series] = self._base.get(series, 0.0) + amount
        return True

    def observe(self, source: str, values: Iterable[tuple[Series, float]]) -> None:
        """Take a source's current values."""
        last = self._last.setdefault(source, {})
        for series, value in values:
            if value < last.get(series, 0.0):
                self.add(series, last.pop(series))
            if self.add(series, 0.0):
                last[series] = value

    def fold(self, live: Iterable[str]) -> None:
        """Bound the sources that are kept; those in ``live`` always are."""
        surplus = max(len(self._last) - MAX_SOURCES, 0)
        kept = set(live)
        for source in [name for name in self._last if name not in kept][:surplus]:
            for series, value in self._last.pop(source).items():
                self.add(series, value)

    def totals(self) -> dict[Series, float]:
        """Return every sum."""
        totals = dict(self._base)
        for last in self._last.values():
            for series, value in last.items():
                totals[series] = totals.get(series, 0.0) + value
        return totals

    def dump(self) -> dict[str, Any]:
        """Return everything, fit for JSON."""
        return {
            "base": _dump(self._base),
            "sources": {name: _dump(last) for name, last in self._last.items()},
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what an earlier exporter wrote."""
        self._base = _load(dumped["base"])
        self._last = {name: _load(last) for name, last in dumped["sources"].items()}


def _dump(values: dict[Series, float]) -> list[Any]:
    return [[name, labels, value] for (name, labels), value in values.items()]


def _load(dumped: list[Any]) -> dict[Series, float]:
    return {(name, tuple((key, text) for key, text in labels)): value for name, labels, value in dumped}
