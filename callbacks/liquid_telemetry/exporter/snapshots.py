"""Reading the metrics that a rank publishes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from liquid_telemetry.signals import PREFIX

MAX_BYTES = 8_000_000


class SnapshotError(ValueError):
    """A snapshot is too large or not OpenMetrics text."""


class Snapshot:
    """The latest good snapshot of one rank, parsed again only when its file has changed."""

    def __init__(self, path: Path) -> None:
        self.families: list[Metric] = []
        self.changed: float | None = None
        self._path = path
        self._version: tuple[int, int, int] | None = None

    def refresh(self, now: float) -> bool:
        """Read the file if it has changed; return whether it had.

        Args:
            now: Monotonic seconds, kept in ``changed``.

        Raises:
            SnapshotError: The new version is corrupt (raised once for it); the last good one stays.
        """
        try:
            status = self._path.stat()
        except OSError:
            return False
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if version == self._version:
            return False
        self._version = version
        self.families = _parse(self._path, status.st_size)
        self.changed = now
        return True

    def samples(self, name: str) -> Iterator[Sample]:
        """Yield the samples of a name, given without the common prefix."""
        full_name = PREFIX + name
        for family in self.families:
            if full_name.startswith(family.name):
                yield from (sample for sample in family.samples if sample.name == full_name)

    def value(self, name: str) -> float | None:
        """Return the first value of a name, given without the common prefix."""
        return next((sample.value for sample in self.samples(name)), None)


def _parse(path: Path, size: int) -> list[Metric]:
    if size > MAX_BYTES:
        raise SnapshotError(f"{path}: {size} bytes, more than {MAX_BYTES}")
    try:
        return list(text_string_to_metric_families(path.read_text("utf-8")))  # type: ignore[no-untyped-call]
    except Exception as error:  # the parser lets KeyError and IndexError through as well
        raise SnapshotError(f"{path}: {type(error).__name__}: {error}") from error
