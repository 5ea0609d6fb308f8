"""Pushgateway: one group per exporter."""

from __future__ import annotations

from urllib.parse import quote

from liquid_telemetry.exporter.sinks.http import Target
from liquid_telemetry.exporter.sinks.shipment import Shipment

JOB = "liquid-train"
_TEXT = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


class Pushgateway:
    """Replaces the group ``job="liquid-train", instance=<identity>`` at each delivery.

    Args:
        url: Base URL.
        identity: Of the exporter.
    """

    def __init__(self, url: str, identity: str) -> None:
        self._group = Target(f"{url}/metrics/job/{JOB}/instance/{quote(identity, safe='')}")

    async def send(self, shipment: Shipment) -> None:
        """Put the group."""
        await self._group.request("PUT", shipment.text(), _TEXT)

    async def remove(self) -> None:
        """Delete the group, whose series would stay for ever."""
        await self._group.request("DELETE")
