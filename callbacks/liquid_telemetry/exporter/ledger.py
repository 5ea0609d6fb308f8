"""Totals of jobs by model, and the hold rule under which scrapes see them.

A counter that is first seen at 1 has no increase, so no alert fires. Therefore a new value is shown only after a
scrape has received the old one, or after the hold time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from liquid_telemetry.signals import FAILURE_REASONS, INTERRUPTION_REASONS

Key = tuple[str, str]
"""Metric (``started``, ``completed``, ``failed``, ``interrupted``) and reason, empty where there is none."""

KEYS: tuple[Key, ...] = (
    ("started", ""),
    ("completed", ""),
    *(("failed", reason) for reason in FAILURE_REASONS),
    *(("interrupted", reason) for reason in INTERRUPTION_REASONS),
)

Receipt = dict[tuple[str, Key], int]
"""The values that one scrape was given."""


@dataclass
class Total:
    """One series: the truth, what scrapes see, and whether one has received it."""

    total: int = 0
    shown: int = 0
    delivered: bool = False
    changed: float | None = None
    pending: float | None = None

    @property
    def settled(self) -> bool:
        """Whether a scrape has received the truth."""
        return self.delivered and self.shown == self.total


@dataclass
class Ledger:
    """Totals of every known model; times are monotonic seconds.

    Args:
        hold: Seconds after which a new value is shown although no scrape received the old one.
    """

    hold: float
    models: dict[str, dict[Key, Total]] = field(default_factory=dict)

    def open(self, model: str) -> None:
        """Begin the series of a model, all at zero."""
        self.models.setdefault(model, {key: Total() for key in KEYS})

    def close(self, model: str) -> None:
        """Forget a model."""
        del self.models[model]

    def add(self, model: str, key: Key, now: float) -> None:
        """Count one job."""
        series = self.models[model][key]
        series.total += 1
        series.changed = now
        if series.pending is None:
            series.pending = now

    def reveal(self, now: float) -> bool:
        """Apply the hold rule; return whether a shown value has changed."""
        due = [series for series in self._all() if _is_due(series, now, self.hold)]
        for series in due:
            series.shown, series.delivered, series.pending = series.total, False, None
        return bool(due)

    def shown(self) -> Receipt:
        """Return what a scrape sees."""
        return {
            (model, key): series.shown
            for model, table in self.models.items()
            for key, series in table.items()
        }

    def acknowledge(self, receipt: Receipt) -> None:
        """Note that a scrape has received these values."""
        for (model, key), value in receipt.items():
            series = self.models.get(model, {}).get(key)
            if series is not None and series.shown == value:
                series.delivered = True

    def settled(self, model: str) -> bool:
        """Whether a scrape has received every total of the model."""
        return all(series.settled for series in self.models.get(model, {}).values())

    def awaiting(self, now: float, leave: float) -> bool:
        """Whether a total that changed within ``leave`` seconds has not been received yet."""
        return any(
            not series.settled and series.changed is not None and now - series.changed < leave
            for series in self._all()
        )

    def dump(self) -> dict[str, dict[str, list[int]]]:
        """Return the totals and the shown values, fit for JSON."""
        return {
            model: {"/".join(key): [series.total, series.shown] for key, series in table.items()}
            for model, table in self.models.items()
        }

    def load(self, dumped: dict[str, Any], now: float) -> None:
        """Take over what an earlier exporter wrote; what it had not shown yet is held anew."""
        for model, table in dumped.items():
            self.open(model)
            for name, (total, shown) in table.items():
                metric, _, reason = name.partition("/")
                pending = now if total != shown else None
                self.models[model][metric, reason] = Total(total, shown, changed=pending, pending=pending)

    def _all(self) -> Iterator[Total]:
        for table in self.models.values():
            yield from table.values()


def _is_due(series: Total, now: float, hold: float) -> bool:
    return series.pending is not None and (series.delivered or now - series.pending >= hold)
