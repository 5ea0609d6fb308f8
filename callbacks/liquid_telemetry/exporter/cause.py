"""Why a process ended that did not say so itself: from what is known of its end to a reason of the catalogue."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from liquid_telemetry.exporter.exit_status import Exit
from liquid_telemetry.signals import FAILURE_REASONS, INTERRUPTION_REASONS

if TYPE_CHECKING:
    from liquid_telemetry.exporter.runs import Rank

_CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS", "SIGTRAP")
_BY_SIGNAL = {"SIGINT": "user", "SIGTERM": "terminated", **dict.fromkeys(_CRASHES, "crashed")}
_BY_CODE = {128 + signal.SIGINT: "user", 128 + signal.SIGTERM: "terminated"}
_UNCAUGHT = 1  # exit code of a spawned process after an exception, which its parent is told of
_ABORTED = Exit(signal=signal.SIGABRT)  # so ends a watchdog of a collective library its process
_OF_A_STALL = ("killed", "exited", "unknown")


@dataclass(frozen=True)
class Cause:
    """Why a process ended.

    Args:
        kind: ``failed`` or ``interrupted``.
        reason: One of the catalogue's.
        known_by: What told: ``parent process``, ``exit status``, ``memory counters``, ``stall`` or ``nothing``.
    """

    kind: str
    reason: str
    known_by: str


def cause_of_death(rank: Rank, *, stalled: bool = False) -> Cause:
    """Return why the process of a rank ended.

    Args:
        rank: Whose process has ended without a final record.
        stalled: Whether its run had made no progress for too long.
    """
    if told := _kind_of(rank.record.reason):
        return Cause(told, str(rank.record.reason), "parent process")
    reason, known_by = _of_exit(rank)
    if stalled and (reason in _OF_A_STALL or rank.process.exit == _ABORTED):
        return Cause("failed", "stalled", "stall")
    return Cause(_kind_of(reason) or "failed", reason, known_by)


def is_its_own(rank: Rank) -> bool:
    """Whether the process ended by itself or for want of memory, not because others ended.

    Launchers end the ranks that are left by SIGTERM and SIGKILL, collective libraries by SIGABRT.
    """
    end = rank.process.exit
    if end is None:
        return False
    return end.signal is None or rank.process.out_of_memory or end.signal_name in _CRASHES[:4]


def _of_exit(rank: Rank) -> tuple[str, str]:
    end = rank.process.exit
    if end is None:
        return "unknown", "nothing"
    if end.signal == signal.SIGKILL and rank.process.out_of_memory:
        return "out_of_memory", "memory counters"
    return _reason(end, spawned=rank.record.spawned), "exit status"


def _reason(end: Exit, *, spawned: bool) -> str:
    if end.signal is not None:
        return _BY_SIGNAL.get(end.signal_name or "", "killed")
    if spawned and end.code == _UNCAUGHT:
        return "exception"
    return _BY_CODE.get(end.code or 0, "exited")


def _kind_of(reason: str | None) -> str | None:
    if reason in INTERRUPTION_REASONS:
        return "interrupted"
    return "failed" if reason in FAILURE_REASONS else None
