"""The command as a child process: started as a shell would, its signals passed on, everything that ends collected."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from liquid_telemetry.launcher.signals import Inbox, Received

NOT_FOUND, NOT_EXECUTABLE = 127, 126
_CAN_LOOK = hasattr(os, "waitid")  # not on macOS before Python 3.13
_IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")


class StartError(Exception):
    """The command cannot be started; one line says why.

    Args:
        text: The line.
        code: Exit code that a shell gives.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Child:
    """A running command.

    It stays in the launcher's session and process group, and has the launcher's standard streams and every other
    descriptor that is meant to be inherited, so that it behaves as if it had been started directly.
    """

    def __init__(self, pid: int, status: int | None = None) -> None:
        self.pid = pid
        self.status = status

    @classmethod
    def start(cls, command: Sequence[str], environment: Mapping[str, str], inbox: Inbox) -> Child:
        """Start a command.

        Raises:
            StartError: It is not there, or is not a program.
        """
        defaults = [getattr(signal, name) for name in _IGNORED_BY_PYTHON]
        try:
            pid = os.posix_spawnp(
                command[0],
                list(command),
                dict(environment),
                setsigmask=inbox.mask_before,
                setsigdef=defaults,
            )
        except (OSError, ValueError) as error:
            raise _start_error(command[0], error) from None
        return cls(pid)

    def collect(self, on_end: Callable[[int, int], None]) -> None:
        """Collect every child that has ended, also those that have become ours as a container's first process.

        Args:
            on_end: Called with process id and wait status while the process can still be told from later ones.
        """
        with suppress(ChildProcessError):
            while (ended := _look_for_end()) is not None:
                pid, status = ended
                on_end(pid, status)
                if _CAN_LOOK:
                    os.waitpid(pid, 0)
                if pid == self.pid:
                    self.status = status

    def pass_on(self, received: Received) -> None:
        """Send the command a signal that it has not had itself."""
        with suppress(ProcessLookupError, PermissionError):
            shared = received.by_terminal and os.getpgid(self.pid) == os.getpgrp()
            if not shared and received.sender != self.pid:
                os.kill(self.pid, received.number)


def exit_code(status: int) -> int:
    """The exit code that a shell gives for a wait status: that of the process, or 128 and the signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _look_for_end() -> tuple[int, int] | None:
    """Return process id and wait status of a child that has ended; it is left to be collected where that can be."""
    if not _CAN_LOOK:
        pid, status = os.waitpid(-1, os.WNOHANG)
        return (pid, status) if pid else None
    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    if ended.si_code == os.CLD_EXITED:
        return ended.si_pid, ended.si_status << 8
    return ended.si_pid, ended.si_status | (0x80 if ended.si_code == os.CLD_DUMPED else 0)


def _start_error(program: str, error: Exception) -> StartError:
    if (
        isinstance(error, FileNotFoundError)
        and shutil.which(program) is None
        and not os.path.lexists(program)
    ):
        return StartError(f"{program}: command not found", NOT_FOUND)
    if isinstance(error, FileNotFoundError):
        return StartError(f"{program}: cannot be executed (its interpreter is missing)", NOT_EXECUTABLE)
    reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
    return StartError(f"{program}: cannot be executed ({reason})", NOT_EXECUTABLE)
