"""The memory of a training process and of its workers, as either side sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_MAX_WORKERS = 1000


@dataclass(frozen=True)
class Memory:
    """Resident memory in bytes: of the process, and of its descendants (0 where the platform does not list them)."""

    process: int
    workers: int


def memory_of(pid: int) -> Memory | None:
    """Return the memory of a process, or None when it is gone or going: the system takes its memory first."""
    own = _resident(pid)
    if own is None:
        return None
    return Memory(own, sum(_resident(child) or 0 for child in _descendants(pid)))


def _resident(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).memory_info().rss) or None
    except psutil.Error:
        return None


def _descendants(pid: int) -> Iterator[int]:
    """Processes under one, by what Linux lists of each thread; psutil would look at all of the host."""
    found, waiting = 0, [pid]
    while waiting and found < _MAX_WORKERS:
        for child in _children(waiting.pop()):
            found += 1
            waiting.append(child)
            yield child


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):  # a thread may end meanwhile
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            children += map(int, file.read_text().split())
    return children
