"""A rank's place in the spool, held by the training process."""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from liquid_telemetry.spool import _lock
from liquid_telemetry.spool._directory import SpoolError
from liquid_telemetry.spool._identity import identity
from liquid_telemetry.spool._lock import FileLock
from liquid_telemetry.spool._record import RunRecord, write_atomically

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_log = logging.getLogger("liquid_telemetry")
_taken: dict[Path, int] = {}  # lock files of this process: a second descriptor on one would drop its lock


class RunSeat:
    """One rank of one run, as the exporter sees it.

    The lock tells the exporter that the process lives, the record what it does, the snapshot what it
    measured. No thread is used, and a forked child (a DataLoader worker) that inherits the object does
    nothing with it. If the run's directory is deleted meanwhile, the next write sits down again.
    """

    def __init__(self, spool: Path, record: RunRecord) -> None:
        self.record = record
        self._directory = spool / "runs" / record.run_id
        self._pid = os.getpid()
        self._lock: FileLock | None = None

    @classmethod
    def take(cls, spool: Path, record: RunRecord) -> RunSeat:
        """Register a rank: lock first, then the record, so that a record without a lock is a death.

        ``pid``, ``ppid``, ``identity``, ``spawned`` and, when zero, ``started`` are filled in.

        Raises:
            ValueError: The run id cannot be a file name.
            SpoolError: The seat is taken by this or another process.
            OSError: The spool cannot be written to.
        """
        if not _RUN_ID.fullmatch(record.run_id):
            raise ValueError(
                f"run_id={record.run_id!r}: must be 1 to 128 letters, digits, '.', '_' or '-', the first a "
                "letter or digit, because it names a directory"
            )
        started = record.started or time.time()
        process = replace(record, pid=os.getpid(), ppid=os.getppid(), identity=identity(), started=started)
        seat = cls(spool, replace(process, spawned=parent_process() is not None))
        try:
            seat._sit()
        except OSError:
            seat.release()
            raise
        return seat

    def update(self, **changes: Any) -> None:
        """Change fields of the record and write it; nothing after :meth:`release`."""
        if self._is_held():
            self.record = replace(self.record, **changes)
            self._write(".json", self.record.to_json())

    def publish(self, snapshot: bytes) -> None:
        """Replace the metrics snapshot, OpenMetrics text with ``# EOF``; nothing after :meth:`release`."""
        if self._is_held():
            self._write(".prom", snapshot)

    def release(self) -> None:
        """Give up the seat; without a final record this reads as a death. Safe to call twice."""
        if self._lock is not None and self._pid == os.getpid():
            _taken.pop(self._lock.path, None)
            self._lock.release()
            self._lock = None

    def _is_held(self) -> bool:
        return self._lock is not None and self._pid == os.getpid()

    def _sit(self) -> None:
        path = self._path(".lock")
        if _taken.get(path) == os.getpid():
            raise SpoolError(f"rank {self.record.rank} of run {self.record.run_id} already has a seat here")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = FileLock.take(path)
        if self._lock is None:
            raise SpoolError(
                f"rank {self.record.rank} of run {self.record.run_id} has a seat in another process; "
                "every process needs a rank or a run_id of its own"
            )
        _taken[path] = os.getpid()
        _warn_without_locks()
        write_atomically(self._path(".json"), self.record.to_json())

    def _write(self, suffix: str, data: bytes) -> None:
        try:
            write_atomically(self._path(suffix), data)
        except FileNotFoundError:
            self.release()
            self._sit()
            write_atomically(self._path(suffix), data)

    def _path(self, suffix: str) -> Path:
        return self._directory / f"{self.record.rank}{suffix}"


def _warn_without_locks() -> None:
    if not _lock.SUPPORTED and not _warned:
        _warned.append(True)
        _log.warning("this platform has no POSIX locks: the end of a killed process will not be seen")


_warned: list[bool] = []
