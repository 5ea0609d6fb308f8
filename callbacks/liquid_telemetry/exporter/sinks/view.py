"""The hold rule of a sink: what it shows of the totals of jobs.

A sink keeps only the last value, and nobody tells when Prometheus reads it there. So each value stands for the hold
time, counted from its first delivery, before the next is shown: Prometheus then sees every rise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from liquid_telemetry.exporter.ledger import Key, Ledger, Receipt


@dataclass
class _Shown:
    value: int
    since: float | None = None


class View:
    """What one sink shows; times are monotonic seconds.

    Args:
        hold: How long a value stands.
        dumped: What an earlier exporter showed there.
    """

    def __init__(self, hold: float, dumped: dict[str, Any]) -> None:
        self._hold = hold
        self._dumped = dumped
        self._shown: dict[tuple[str, Key], _Shown] = {}

    def show(self, ledger: Ledger, now: float) -> Receipt:
        """Return the values to deliver now; a series that is new here begins with what scrapes see of it."""
        receipt: Receipt = {}
        for model, table in ledger.models.items():
            before = self._dumped.get(model, {})
            for key, total in table.items():
                begin = before.get("/".join(key), total.shown)
                shown = self._shown.setdefault((model, key), _Shown(begin))
                if shown.value != total.total and self._has_stood(shown, now):
                    shown = self._shown[model, key] = _Shown(total.total)
                receipt[model, key] = shown.value
        for gone in self._shown.keys() - receipt.keys():
            del self._shown[gone]
        return receipt

    def deliver(self, receipt: Receipt, now: float) -> None:
        """Note that these values have been delivered."""
        for series, value in receipt.items():
            shown = self._shown.get(series)
            if shown is not None and shown.value == value and shown.since is None:
                shown.since = now

    def settled(self, ledger: Ledger, model: str) -> bool:
        """Whether every total of the model has been delivered."""
        return all(
            (shown := self._shown.get((model, key))) is not None
            and shown.value == total.total
            and shown.since is not None
            for key, total in ledger.models.get(model, {}).items()
        )

    def awaiting(self, ledger: Ledger, now: float, leave: float) -> bool:
        """Whether a total that changed within ``leave`` seconds has not been delivered or not stood yet."""
        for model, table in ledger.models.items():
            for key, total in table.items():
                if total.changed is None or now - total.changed >= leave:
                    continue
                shown = self._shown.get((model, key))
                if shown is None or shown.value != total.total or not self._has_stood(shown, now):
                    return True
        return False

    def dump(self) -> dict[str, dict[str, int]]:
        """Return what is shown, fit for JSON."""
        dumped: dict[str, dict[str, int]] = {}
        for (model, key), shown in self._shown.items():
            dumped.setdefault(model, {})["/".join(key)] = shown.value
        return dumped

    def _has_stood(self, shown: _Shown, now: float) -> bool:
        return shown.since is not None and now - shown.since >= self._hold
