"""Whether the kernel has killed for want of memory: the counters of a process's control group, else of the host."""

from __future__ import annotations

from collections import deque
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
VMSTAT = Path("/proc/vmstat")
WINDOW = 10.0
"""Seconds that a killed process may take to go: its memory is freed before its lock."""


class MemoryKills:
    """Compares the counter at a process's death with what it was some seconds before.

    Args:
        pid: A live process.
    """

    def __init__(self, pid: int) -> None:
        self._sources = [*_of_cgroup(pid), VMSTAT]
        self._seen: deque[tuple[float, list[int | None]]] = deque(maxlen=64)
        self.explains = False
        """Whether the counter rose within the last seconds that the process lived."""

    def sample(self, now: float) -> None:
        """Read the counters while the process lives.

        Args:
            now: Monotonic seconds.
        """
        while len(self._seen) > 1 and now - self._seen[1][0] >= WINDOW:
            self._seen.popleft()
        self._seen.append((now, [_count(source) for source in self._sources]))

    def look(self) -> None:
        """Compare, now that the process has died; its control group may have gone with it."""
        before = self._seen[0][1] if self._seen else [None] * len(self._sources)
        for source, then in zip(self._sources, before, strict=True):
            now = _count(source)
            if then is not None and now is not None:
                self.explains = now > then
                return


def _of_cgroup(pid: int) -> list[Path]:
    """The file that counts the kills in the process's control group, of version 2 where there are both."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in sorted(lines, key=lambda line: not line.startswith("0:")):
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mounts, name = [CGROUPS, CGROUPS / "unified"], "memory.events"
        elif "memory" in controllers.split(","):
            mounts, name = [CGROUPS / "memory"], "memory.oom_control"
        else:
            continue
        files += [mount / group.lstrip("/") / name for mount in mounts]
        files += [mount / name for mount in mounts]  # all that a container sees may be its own group
    return [file for file in files if _count(file) is not None][:1]


def _count(file: Path) -> int | None:
    try:
        text = file.read_text()
    except OSError:
        return None
    found = (line.split() for line in text.splitlines())
    return next((int(fields[1]) for fields in found if len(fields) == 2 and fields[0] == "oom_kill"), None)
