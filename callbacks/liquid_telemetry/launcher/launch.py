"""Run a command: start it, watch it, wait until its end has been scraped, return its exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from liquid_telemetry.launcher.child import Child, StartError, exit_code
from liquid_telemetry.launcher.job import LaunchedJob
from liquid_telemetry.launcher.naming import name_of
from liquid_telemetry.launcher.signals import ENDING, Inbox
from liquid_telemetry.spool import LAUNCHER_VARIABLE

LINGER = 30.0
"""Seconds that the end waits to be scraped: Prometheus must see the old total and the new one, at 15 s each."""

_TICK = 30.0
_GLANCE = 0.2
_PATIENCE = (3.0, 5.0)  # seconds that the exporter gets to count the end, and to finish the logs of the dead


def launch(
    command: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 9464,
    model_name: str | None = None,
    linger: float | None = None,
    dir: str | os.PathLike[str] = "runs",
) -> int:
    """Run a command to its end and return its exit code: 128 and the signal when it was killed by one.

    Nothing that goes wrong with the telemetry keeps the command from running.

    Args:
        command: Program and arguments, found in ``PATH`` as by a shell.
        host: Address that the exporter is asked to listen on, if none lives.
        port: Its port; 0 for a free one.
        model_name: Label under which the command counts when it ends before it starts a run; the script's name when
            None.
        linger: Seconds that the end may wait to be scraped; when None, 30, and 0 at a terminal, where the exporter
            outlives the launcher.
        dir: Directory for the log of a command that ended before it started a run.
    """
    inbox = Inbox()
    try:
        return _Launch(inbox, linger).run(command, model_name or name_of(command), host, port, Path(dir))
    finally:
        inbox.close()


class _Launch:
    def __init__(self, inbox: Inbox, linger: float | None) -> None:
        self._inbox = inbox
        self._first = os.getpid() == 1
        self._linger = _default_linger(self._first) if linger is None else linger
        self._job: LaunchedJob | None = None

    def run(self, command: Sequence[str], model_name: str, host: str, port: int, runs: Path) -> int:
        self._guarded(self._open, model_name, host, port, runs)
        child, why = self._start(command)
        status = self._watch(child)
        self._tell("end", status, why)
        self._wait_for_scrapes(child)
        if self._first:
            self._end_exporter(child)
        return exit_code(status)

    def _start(self, command: Sequence[str]) -> tuple[Child, str | None]:
        """Start the command; where it cannot be, it is as one that has ended at once, and the line says why."""
        try:
            child = Child.start(command, self._environment(), self._inbox)
        except StartError as error:
            _say(str(error))
            return Child(0, status=error.code << 8), str(error)
        self._tell("began", child.pid)
        return child, None

    def _open(self, model_name: str, host: str, port: int, runs: Path) -> None:
        self._job = LaunchedJob(model_name, host, port, runs)

    def _environment(self) -> dict[str, str]:
        launcher = {LAUNCHER_VARIABLE: self._job.run_id} if self._job is not None else {}
        return {**os.environ, **launcher}

    def _watch(self, child: Child) -> int:
        """Pass signals on until the command ends; return its wait status."""
        while child.status is None:
            received = self._inbox.take(_TICK)
            if received is not None and received.number != signal.SIGCHLD:
                child.pass_on(received)
            child.collect(partial(self._tell, "note_end"))
            self._tell("look")
        return child.status

    def _wait_for_scrapes(self, child: Child) -> None:
        """Stay while an end has not been scraped, until it is enough or a signal says so."""
        job, deadline = self._job, time.monotonic() + self._linger
        if job is None or self._linger <= 0 or not self._tell("is_awaited"):
            return
        _say(f"the end waits up to {self._linger:g} s to be scraped; Ctrl-C or SIGTERM ends that")
        if remark := self._tell("remark"):
            _say(str(remark))
        while time.monotonic() < deadline and self._tell("is_awaited"):
            received = self._inbox.take(_GLANCE)
            if received is not None and received.number in ENDING:
                return
            child.collect(partial(self._tell, "note_end"))
            self._tell("look", 5.0)

    def _end_exporter(self, child: Child) -> None:
        """Let the exporter count the end and finish the logs: it dies with a container's first process."""
        self._await(child, lambda: self._tell("exporter") is None and self._tell("is_awaited"), _PATIENCE[0])
        pid = self._tell("exporter")
        if not isinstance(pid, int) or not _is_child(pid):
            return
        for patience in _PATIENCE:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            self._await(child, lambda: self._tell("exporter_lives"), patience)

    def _await(self, child: Child, busy: Callable[[], Any], patience: float) -> None:
        deadline = time.monotonic() + patience
        while busy() and time.monotonic() < deadline:
            self._inbox.take(_GLANCE)
            child.collect(lambda pid, status: None)

    def _tell(self, method: str, *arguments: Any) -> Any:
        if self._job is not None:
            return self._guarded(getattr(self._job, method), *arguments)
        return None

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Whatever goes wrong with the telemetry is said in a line and forgotten."""
        try:
            return call(*arguments)
        except Exception as error:
            _say_once(f"telemetry: {type(error).__name__}: {error}")
            return None


def _default_linger(first: bool) -> float:
    """At a terminal nobody wants to wait, and the exporter goes on; but not after a container's first process."""
    return 0.0 if not first and any(map(_is_terminal, (0, 1, 2))) else LINGER


def _is_terminal(descriptor: int) -> bool:
    with suppress(OSError):
        return os.isatty(descriptor)
    return False


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _say(text: str) -> None:
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"liquid-train run: {text}\n")
        sys.stderr.flush()


_said: set[str] = set()


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        _say(text)
