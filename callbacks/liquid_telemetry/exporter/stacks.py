"""Asking a stalled process for its Python stacks, by signals that it has registered for that."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from liquid_telemetry.spool import END_OF_STACKS, Pulse, RunRecord, identity

MAX_CHARACTERS = 64_000
_MAX_THREADS = 100
_PYTHON_ANSWERS = 1.5  # seconds; so long a main thread that runs Python may take to answer
_THREAD_ANSWERS = 0.2
_THREADS_ANSWER = 5.0
_WHOLE = "\n" + END_OF_STACKS.decode()
_PAUSE = 0.005
_QUIET = 3  # pauses without a new byte after which an answer is whole
_OWN_FRAME = re.compile(r'^ *File ".*stacks\.py", line \d+ in _answer\n', re.MULTILINE)
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
    process = _Process(record, pulse, path)
    try:
        if not process.is_itself():
            return Stacks(None, "the process cannot be seen from here", None)
        state = process.state(record.pid)
        if pulse.ask is None and pulse.dump is None:
            return Stacks(
                None, "the process has no signal for it: only Linux has, and not all were free", state
            )
        if state in ("stopped by a signal", "stopped by a debugger"):
            return Stacks(None, f"the process is {state}", state)
        text = process.tell()
    except FileNotFoundError:
        return Stacks(None, "the process is ending, or has not answered an earlier question", None)
    except (OSError, AttributeError) as error:  # AttributeError: a C library without tgkill
        return Stacks(None, f"{type(error).__name__}: {error}", None)
    return Stacks(text[:MAX_CHARACTERS] or None, None if text else "no thread answered", state)


class _Process:
    def __init__(self, record: RunRecord, pulse: Pulse, path: Path) -> None:
        self._pid, self._identity = record.pid, record.identity
        self._ask, self._dump = _real_time(pulse.ask), _real_time(pulse.dump)
        self._path, self._claimed = path, path.with_suffix(".asked")
        self._tasks = Path(f"/proc/{record.pid}/task")

    def is_itself(self) -> bool:
        """Whether the pid is still that of the process that the record names."""
        return self._identity is not None and identity(self._pid) == self._identity

    def tell(self) -> str:
        """Return what the threads answer. The file has another name meanwhile, so that they keep their handlers.

        Raises:
            FileNotFoundError: It has given its handlers back, or an earlier question has not been answered yet.
            OSError: The file cannot be read.
        """
        self._give_back()
        os.truncate(self._path, 0)
        self._path.rename(self._claimed)
        try:
            return self._all(self._ask) or "\n\n".join(self._each(self._dump))
        finally:
            with contextlib.suppress(OSError):  # it has died meanwhile
                self._give_back()

    def _give_back(self) -> None:
        """Give the file its name back, and with it the right to end the handlers, unless a signal is on its way."""
        if self._claimed.exists() and not self._path.exists() and not self._is_awaited():
            self._claimed.rename(self._path)

    def _is_awaited(self) -> bool:
        numbers = [number for number in (self._ask, self._dump) if number is not None]
        return any(
            self._is_set(thread, "SigPnd:", number) for thread in self._threads() for number in numbers
        )

    def state(self, thread: int) -> str | None:
        """What a thread does."""
        return _STATES.get(self._letter(thread), self._letter(thread) or None)

    def _all(self, number: int | None) -> str:
        """What the main thread says of all, if it runs Python."""
        asked = number is not None and self._send(self._pid, number)
        whole = asked and _wait(lambda: self._answer().endswith(_WHOLE), _PYTHON_ANSWERS)
        return _OWN_FRAME.sub("", self._answer()).strip() if whole else ""

    def _each(self, number: int | None) -> Iterator[str]:
        """What each thread says of itself, the main thread first."""
        if number is None:
            return
        deadline = time.monotonic() + _THREADS_ANSWER
        for thread in self._threads():
            if time.monotonic() > deadline:
                break
            if thread != self._pid and self._letter(thread) != "S":
                continue  # while it runs Python, its own stack is not safe to read
            size = len(self._answer())
            if self._send(thread, number):
                _wait(
                    lambda thread=thread: not self._is_set(thread, "SigPnd:", number),  # type: ignore[misc]
                    _THREAD_ANSWERS,
                )
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
        hears = self._letter(thread) not in _DEAF and not self._is_set(thread, "SigBlk:", number)
        if not hears or not self._is_set(self._pid, "SigCgt:", number) or not self.is_itself():
            return False
        return bool(_tgkill()(self._pid, thread, number) == 0)

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

    def _answer(self) -> str:
        with self._claimed.open(encoding="utf-8", errors="replace") as file:
            return file.read(4 * MAX_CHARACTERS)

    def _wait_until_quiet(self) -> None:
        size, quiet = -1, 0
        while quiet < _QUIET:
            time.sleep(_PAUSE)
            now = self._claimed.stat().st_size
            quiet = quiet + 1 if now == size else 0
            size = now


def _real_time(number: int | None) -> int | None:
    """Any other signal in a pulse is damage."""
    return number if number is not None and signal.SIGRTMIN <= number <= signal.SIGRTMAX else None


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
