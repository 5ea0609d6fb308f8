"""What is sent, and what a sink is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric


class SinkError(Exception):
    """A sink has refused what was sent."""


@dataclass(frozen=True)
class Shipment:
    """One delivery; times in unix seconds.

    Args:
        families: The samples.
        time: When they were collected.
        born: Since when the totals and sums have counted.
        starts: Since when the series of a model and slot have counted.
    """

    families: list[Metric]
    time: float
    born: float
    starts: Mapping[tuple[str, str], float]

    def text(self) -> bytes:
        """Encode as Prometheus text."""
        return generate_latest(_Families(self.families))


class Sink(Protocol):
    """A receiver of shipments. Neither method may block; any exception means that nothing was delivered."""

    async def send(self, shipment: Shipment) -> None:
        """Replace what was sent before."""

    async def remove(self) -> None:
        """Take back what was sent: nobody will send again."""


@dataclass(frozen=True)
class _Families:
    families: list[Metric]

    def collect(self) -> list[Metric]:
        return self.families
