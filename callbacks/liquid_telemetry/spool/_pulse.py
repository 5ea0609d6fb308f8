"""Where a rank is and that it goes on: one short line in place, cheap enough for every change of phase."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from liquid_telemetry.spool._record import types_of

SIZE = 512
END_OF_STACKS = b"\n\n"
"""Ends what a main thread tells of all threads, which has single empty lines within."""


@dataclass(frozen=True)
class Pulse:
    """The last sign of progress of one rank.

    Args:
        phase: ``start-up``, ``first batch``, ``batch``, ``epoch`` (from an epoch's last batch to the next one's first),
            ``validation``, ``test``, ``predict``, ``checkpoint`` or ``end``.
        at: Monotonic seconds of the process; no two pulses have the same.
        seen: How many silences of this phase have ended.
        longest: The longest of them, in seconds.
        second: The second longest.
        epoch: Current epoch, from zero.
        batch: Last batch that ended, from zero.
        ask: Signal at which the main thread writes the Python stacks of all threads to ``<rank>.stacks``.
        dump: Signal at which a thread that is stuck in C writes its own.
    """

    phase: str
    at: float
    seen: int = 0
    longest: float = 0.0
    second: float = 0.0
    epoch: int | None = None
    batch: int | None = None
    ask: int | None = None
    dump: int | None = None

    def to_bytes(self) -> bytes:
        """Encode as one line of always the same length, which is written over the one before."""
        return json.dumps(asdict(self)).encode().ljust(SIZE - 1) + b"\n"


_TYPES = {name: types_of(hint) for name, hint in get_type_hints(Pulse).items()}


def read_pulse(path: Path) -> Pulse | None:
    """Read the last pulse; None when there is none that can be read."""
    try:
        with path.open("rb") as file:
            decoded: Any = json.loads(file.read(SIZE), parse_constant=_refuse)
        known = {name: value for name, value in decoded.items() if name in _TYPES}
        return Pulse(**known) if all(isinstance(known[name], _TYPES[name]) for name in known) else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
