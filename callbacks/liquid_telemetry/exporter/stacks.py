"""Asking a stalled process for its Python stacks, by signals that it has registered for that."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from liquid_telemetry.spool import Pulse, RunRecord, identity

MAX_CHARACTERS = 64_000
_MAX_THREADS = 100
_PYTHON_ANSWERS = 1.5  # seconds; so long a main thread that runs Python may take to answer
_THREAD_ANSWERS = 0.2
_PAUSE = 0.005
_QUIET = 3  # pauses without a new byte after which an answer is whole
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk, a network mount or a driver",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "dead",
    "I": "idle",
}
_DEAF = "DTtZX"


@dataclass(frozen=True)
class Stacks:
    """What a process told.

    Args:
        text: Its stacks, the innermost frame first; None where there are none.
        missing: Why.
        state: What its main thread does, as the kernel sees it.
    """

    text: str | None
    missing: str | None
    state: str | None


def ask(record: RunRecord, pulse: Pulse, path: Path) -> Stacks:
    """Ask a process that gives no sign of progress; takes a few seconds at most, and never raises ``OSError``.

    A signal is sent only to the very process that the record names, only while it has a handler for it, and not to a
    thread that could not take it now: its default would end the process later.

    Args:
        record: Of the process.
        pulse: Its last, with the signals.
        path: Where it writes.
    """
    process = _Process(record.pid, path)
    try:
        if record.identity is None or identity(record.pid) != record.identity:
            return Stacks(None, "the process cannot be seen from here", None)
        state = process.state(record.pid)
        if pulse.ask is None and pulse.dump is None:
            return Stacks(
                None, "the process has no signal for it: only Linux has, and not all were free", state
            )
        if state in ("stopped by a signal", "stopped by a debugger"):
            return Stacks(None, f"the process is {state}", state)
        text = process.tell(pulse)
    except (OSError, AttributeError) as error:  # AttributeError: a C library without tgkill
        return Stacks(None, f"{type(error).__name__}: {error}", None)
    return Stacks(text[:MAX_CHARACTERS] or None, None if text else "no thread answered", state)


class _Process:
    def __init__(self, pid: int, path: Path) -> None:
        self._pid = pid
        self._path, self._claimed = path, path.with_suffix(".asked")
        self._tasks = Path(f"/proc/{pid}/task")

    def tell(self, pulse: Pulse) -> str:
        """Return what the threads answer. The file has another name meanwhile, so that they keep their handlers.

        Raises:
            OSError: It has given its handlers back, or an earlier question has not been answered yet.
        """
        os.truncate(self._path, 0)
        self._path.rename(self._claimed)
        if pulse.ask is not None and self._send(self._pid, pulse.ask):
            answered = _wait(lambda: self._answer().endswith("\n\n"), _PYTHON_ANSWERS)
            if answered:
                self._claimed.rename(self._path)
                return self._answer(self._path).strip()
        text = "\n\n".join(self._each(pulse.dump)) if pulse.dump is not None else ""
        if not any(self._pending(thread) for thread in self._threads()):
            self._claimed.rename(self._path)
        return text

    def state(self, thread: int) -> str | None:
        """What a thread does."""
        return _STATES.get(self._letter(thread), self._letter(thread) or None)

    def _each(self, number: int) -> Iterator[str]:
        """What each thread says of itself, the main thread first."""
        for thread in self._threads():
            if thread != self._pid and self._letter(thread) != "S":
                continue  # while it runs Python, its own stack is not safe to read
            size = len(self._answer())
            if self._send(thread, number):
                _wait(lambda thread=thread: not self._pending(thread), _THREAD_ANSWERS)  # type: ignore[misc]
                self._wait_until_quiet()
                if frames := self._answer()[size:].partition("\n")[2].strip("\n"):
                    yield f"Thread {thread} ({self._name(thread)}, {self.state(thread)}):\n{frames}"

    def _threads(self) -> list[int]:
        found = sorted(
            (int(path.name) for path in self._tasks.iterdir()), key=lambda thread: thread != self._pid
        )
        return found[:_MAX_THREADS]

    def _send(self, thread: int, number: int) -> bool:
        """Signal a thread that has a handler for that and can run it now."""
        if self._letter(thread) in _DEAF or not self._is_set(self._pid, "SigCgt:", number):
            return False
        if self._is_set(thread, "SigBlk:", number):
            return False
        return bool(_tgkill()(self._pid, thread, number) == 0)

    def _pending(self, thread: int) -> bool:
        return self._status(thread, "SigPnd:").strip("0") != ""

    def _is_set(self, thread: int, name: str, number: int) -> bool:
        return bool(int(self._status(thread, name) or "0", 16) >> (number - 1) & 1)

    def _status(self, thread: int, name: str) -> str:
        with contextlib.suppress(OSError):  # the thread has ended
            for line in (self._tasks / str(thread) / "status").read_text().splitlines():
                if line.startswith(name):
                    return line.split()[1]
        return ""

    def _letter(self, thread: int) -> str:
        with contextlib.suppress(OSError, IndexError):
            stat = (self._tasks / str(thread) / "stat").read_text(errors="replace")
            return stat.rpartition(")")[2].split()[0]
        return "X"

    def _name(self, thread: int) -> str:
        with contextlib.suppress(OSError):
            return (self._tasks / str(thread) / "comm").read_text(errors="replace").strip()
        return "?"

    def _answer(self, path: Path | None = None) -> str:
        with (path or self._claimed).open(encoding="utf-8", errors="replace") as file:
            return file.read(4 * MAX_CHARACTERS)

    def _wait_until_quiet(self) -> None:
        size, quiet = -1, 0
        while quiet < _QUIET:
            time.sleep(_PAUSE)
            now = self._claimed.stat().st_size
            quiet = quiet + 1 if now == size else 0
            size = now


def _wait(check: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _tgkill() -> Callable[[int, int, int], int]:
    """The C library's; Python signals threads of its own process only."""
    found: Callable[[int, int, int], int] = ctypes.CDLL(None).tgkill
    return found
