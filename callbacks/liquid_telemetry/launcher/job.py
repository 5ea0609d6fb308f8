"""The launcher's own seat in the spool: a job that counts only if its command ends before any run has begun."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from liquid_telemetry.launcher.child import exit_code
from liquid_telemetry.launcher.last_words import LastWords
from liquid_telemetry.spool import (
    RunRecord,
    RunSeat,
    ensure_exporter,
    exporter_address,
    has_started,
    identity,
    is_locked,
    read_record,
    spool_dir,
    start_exporter,
    write_atomically,
    write_exit,
)

_LOOK_EVERY = 30.0


class LaunchedJob:
    """What the exporter is told of a command.

    Args:
        model_name: Label under which the command counts when it ends before it has named a model.
        host: Address that the exporter is asked to listen on, if none lives.
        port: Its port; 0 for a free one.
        runs: Directory for the log of a command that ended before it made one.
    """

    def __init__(self, model_name: str, host: str, port: int, runs: Path) -> None:
        self._spool = spool_dir()
        self._host, self._port, self._runs = host, port, runs
        self.run_id = f"launch-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}-{os.urandom(3).hex()}"
        record = RunRecord(self.run_id, model_name, job=False, status="launching")
        self._seat = RunSeat.take(self._spool, record)
        self._words = LastWords()
        start_exporter(self._spool, host, port)

    def began(self, pid: int) -> None:
        """The command runs: from now on the seat speaks of its process."""
        self._seat.update(pid=pid, ppid=os.getpid(), identity=identity(pid))

    def look(self, every: float = _LOOK_EVERY) -> None:
        """Replace an exporter that has died."""
        ensure_exporter(self._spool, self._host, self._port, every)

    def note_end(self, pid: int, status: int) -> None:
        """Tell how a process has ended, which only its parent knows for certain."""
        write_exit(self._spool, pid, status)

    def end(self, status: int, why: str | None = None) -> None:
        """The command has ended: it counts as a job of its own if it has started no run and was not a success.

        The exporter finds the cause, as of any process that ends without a word.

        Args:
            status: Its wait status.
            why: A line where it could not be started.
        """
        code = exit_code(status)
        if code != 0 and not has_started(self._spool, self.run_id):
            write_exit(self._spool, self._seat.record.pid, status)
            told = self._words.of(code) or {
                "error_message": why or f"{_in_words(status)} before it started a run"
            }
            self._seat.update(job=True, status="starting", ended=time.time(), **self._log(), **told)
        self._seat.release()

    def _log(self) -> dict[str, str]:
        """Begin a log, in which the exporter tells of the end, in what is a run directory to ``view`` and ``clean``."""
        directory = self._runs.absolute() / self.run_id
        try:
            directory.mkdir(parents=True, exist_ok=True)
            log = directory / "events.jsonl"
            log.touch()
            said = {
                "run_id": self.run_id,
                "pid": self._seat.record.pid,
                "events": str(log),
                "spool": str(self._spool),
            }
            write_atomically(directory / "telemetry.json", json.dumps(said, indent=2).encode())
        except OSError:
            return {}
        return {"run_dir": str(directory), "events": str(log)}

    def is_awaited(self) -> bool:
        """Whether the end of a run under this launcher has not been scraped yet; the exporter then clears it away."""
        theirs = (record for record in self._records() if self.run_id in (record.run_id, record.launcher))
        return any(record.status != "launching" for record in theirs)

    def remark(self) -> str | None:
        """Return what to tell of the exporter's address, None when it is the one asked for."""
        address = exporter_address(self._spool)
        return address.remark(self._host, self._port) if address is not None else None

    def exporter(self) -> int | None:
        """Return the process id of the live exporter."""
        address = exporter_address(self._spool)
        return address.pid if address is not None else None

    def exporter_lives(self) -> bool:
        """Whether an exporter holds its lock."""
        return is_locked(self._spool / "exporter.lock")

    def _records(self) -> Iterator[RunRecord]:
        for path in self._spool.glob("runs/[!.]*/*.json"):
            with suppress(OSError, ValueError, TypeError):
                yield read_record(path)


def _in_words(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exited with code {os.WEXITSTATUS(status)}"
