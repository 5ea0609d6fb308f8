"""Values of the host, sampled once for all runs, when somebody asks and at most every few seconds."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from liquid_telemetry.exporter.gpu import Gpus, Readings

_INTERVAL = 3.0
_PATIENCE = 2.0


@dataclass(frozen=True)
class HostSample:
    """One look at the host; sizes in bytes, use in percent.

    Args:
        memory_used: Memory that is not available to a new process.
        memory_available: Memory that is.
        memory_percent: Used share of the whole.
        cpu: Use of each core since the sample before; empty in the first one.
        cpu_percent: Use of all of them, likewise; 0 in the first one.
        disk_percent: Used share of the fuller of the disks that hold the runs and the spool.
        disk_free: Free bytes on it.
        process: Resident memory of the training processes.
        workers: Resident memory of their descendants.
        gpus: What the GPUs tell.
    """

    memory_used: int
    memory_available: int
    memory_percent: float
    cpu: tuple[float, ...]
    cpu_percent: float
    disk_percent: float
    disk_free: int
    process: int
    workers: int
    gpus: Readings


class Host:
    """Samples the host beside the event loop, so that a disk that hangs does not hold up a scrape."""

    def __init__(self) -> None:
        self.sample: HostSample | None = None
        self._gpus = Gpus()
        self._running: asyncio.Future[HostSample] | None = None
        self._at = float("-inf")

    async def refresh(
        self, now: float, pids: Collection[int], disks: Collection[Path], interval: float = _INTERVAL
    ) -> None:
        """Take a new sample unless the last one is fresh; keeps the last one if that takes too long.

        Args:
            now: Monotonic seconds.
            pids: Training processes.
            disks: Paths on the disks that matter; the fullest is told of.
            interval: Seconds for which a sample is fresh.

        Raises:
            OSError, psutil.Error: The host does not tell.
        """
        if self._running is None:
            if now - self._at < interval:
                return
            first = self.sample is None
            self._running = asyncio.ensure_future(
                asyncio.to_thread(_look, frozenset(pids), list(disks), self._gpus, first)
            )
        running = self._running  # of several that wait, the first to go on clears it
        await asyncio.wait({running}, timeout=_PATIENCE)
        if running is self._running and running.done():
            self._running, self._at = None, now
            self.sample = running.result()


def _look(pids: frozenset[int], disks: Sequence[Path], gpus: Gpus, first: bool) -> HostSample:
    memory = psutil.virtual_memory()
    space = max((psutil.disk_usage(str(disk)) for disk in disks), key=lambda usage: usage.percent)
    cpu = psutil.cpu_percent(percpu=True)
    process, workers = _resident(pids)
    return HostSample(
        memory_used=memory.total - memory.available,
        memory_available=memory.available,
        memory_percent=memory.percent,
        cpu=() if first else tuple(cpu),
        cpu_percent=round(sum(cpu) / len(cpu), 1),
        disk_percent=space.percent,
        disk_free=space.free,
        process=process,
        workers=workers,
        gpus=gpus.look(),
    )


def _resident(pids: frozenset[int]) -> tuple[int, int]:
    """Return the resident memory of processes and of their other descendants, ours excepted."""
    children: dict[int, list[psutil.Process]] = defaultdict(list)
    everyone = {process.pid: process for process in psutil.process_iter(["ppid"])} if pids else {}
    for process in everyone.values():
        children[process.info["ppid"]].append(process)
    sizes: dict[int, int] = {}
    family = [everyone[pid] for pid in pids if pid in everyone]
    while family:
        process = family.pop()
        if process.pid not in sizes:
            sizes[process.pid] = _size(process)
            family += children[process.pid]
    sizes.pop(os.getpid(), None)
    trainers = sum(size for pid, size in sizes.items() if pid in pids)
    return trainers, sum(sizes.values()) - trainers


def _size(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
