"""node_exporter's textfile collector: one file per exporter."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from prometheus_client.metrics_core import Metric

from liquid_telemetry.exporter.sinks.shipment import Shipment

_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")


class Textfile:
    """Replaces ``liquid_telemetry_<identity>.prom``, which everybody may read, at each delivery.

    node_exporter serves all files as one target and fails for all when two of them have one series: each sample
    carries the label ``exporter``.

    Args:
        directory: Of the collector.
        identity: Of the exporter.
    """

    def __init__(self, directory: str, identity: str) -> None:
        self._identity = identity
        self._path = Path(directory) / f"liquid_telemetry_{_UNFIT.sub('_', identity)}.prom"
        self._thread = ThreadPoolExecutor(1, "textfile")  # its own: a disk that hangs takes no other's
        self._temporary = self._path.with_name(f".{self._path.name}.new")

    async def send(self, shipment: Shipment) -> None:
        """Write the file, beside the event loop: the disk may be slow."""
        families = [self._mark(family) for family in shipment.families]
        await self._beside(self._write, replace(shipment, families=families).text())

    async def remove(self) -> None:
        """Delete the file."""
        await self._beside(self._path.unlink, True)

    async def _beside(self, work: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _mark(self, family: Metric) -> Metric:
        marked = Metric(family.name, family.documentation, family.type)
        marked.samples = [
            sample._replace(labels={**sample.labels, "exporter": self._identity}) for sample in family.samples
        ]
        return marked

    def _write(self, content: bytes) -> None:
        try:
            with self._temporary.open("wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
            self._temporary.replace(self._path)
        except OSError:
            self._temporary.unlink(missing_ok=True)
            raise
