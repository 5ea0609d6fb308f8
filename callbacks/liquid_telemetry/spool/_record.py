"""What a rank says of itself, one small JSON file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

_MAX_BYTES = 1_000_000

FINAL = frozenset({"completed", "failed", "interrupted", "tuned"})
"""Statuses after which a process may go without having died."""


@dataclass(frozen=True)
class RunRecord:
    """The life of one rank of one run.

    Args:
        run_id: Also the name of the run's directory in the spool.
        model_name: Value of the ``model_name`` label.
        rank: Global rank.
        world_size: How many ranks the run has, on all nodes together.
        node: Number of the node; the run is counted on node 0.
        job: Whether the run is a job (``fit``), whose outcome is counted; ``validate``, ``test`` and
            ``predict`` alone are not.
        status: ``starting``, ``running``, ``completed``, ``failed``, ``interrupted``, ``tuned`` (the Tuner
            ended ``fit`` before any training: nothing to count) or ``launching`` (a launcher's own seat).
        stage: ``train``, ``validation``, ``test`` or ``predict``.
        reason: Of a failure or interruption, one of the catalogue's.
        error_type: Class name of the exception.
        error_message: Its text.
        traceback: Where the parent of a spawned process tells what that died of.
        pid: Process; :meth:`RunSeat.take` fills it, with those down to ``started``.
        ppid: Its parent.
        identity: What tells the process from a later one with its pid.
        spawned: Whether a Python process spawned it, which is told of its exceptions and may pass them on.
        launcher: Run id of the launcher that it is under, which tells how its processes end.
        started: Unix seconds.
        ended: Unix seconds, None before the end.
        epoch: Current epoch, from zero.
        batch: Current batch, from zero.
        run_dir: Absolute path of the run directory.
        events: Absolute path of the event log, where the exporter tells of a death.
        traces: Absolute path of the trace file.
        trace_id: Of the run's trace, 32 hexadecimal digits.
        trace_url: Where the trace can be seen.
        sinks: Where the exporter is to send the metrics, as ``find_sinks`` returns them.
    """

    run_id: str
    model_name: str
    rank: int = 0
    world_size: int = 1
    node: int = 0
    job: bool = True
    status: str = "starting"
    stage: str | None = None
    reason: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    pid: int = 0
    ppid: int = 0
    identity: str | None = None
    spawned: bool = False
    launcher: str | None = None
    started: float = 0.0
    ended: float | None = None
    epoch: int | None = None
    batch: int | None = None
    run_dir: str | None = None
    events: str | None = None
    traces: str | None = None
    trace_id: str | None = None
    trace_url: str | None = None
    sinks: list[dict[str, str]] | None = None

    @property
    def final(self) -> bool:
        """Whether nothing more is owed: the process may go."""
        return self.status in FINAL

    def to_json(self) -> bytes:
        """Encode as one JSON object."""
        return json.dumps(asdict(self), default=str).encode()

    @classmethod
    def from_json(cls, data: bytes) -> RunRecord:
        """Decode; unknown keys, as a newer version may write, are ignored.

        Raises:
            ValueError: Not a JSON object with a ``run_id`` and a ``model_name``, or a value of another type.
        """
        try:
            decoded: Any = json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(decoded, dict) or not {"run_id", "model_name"} <= decoded.keys():
            raise ValueError("a run record must be a JSON object with run_id and model_name")
        known = {name: value for name, value in decoded.items() if name in _TYPES}
        for name, value in known.items():
            if not isinstance(value, _TYPES[name]):
                types = " or ".join(one.__name__ for one in _TYPES[name])
                raise ValueError(f"{name}={value!r:.100}: must be {types}")
        return cls(**known)


def types_of(hint: Any) -> tuple[type, ...]:
    """The types that JSON may hold for a field: an integer is a float, too."""
    types = tuple(
        get_origin(one) or one for one in (get_args(hint) if type(None) in get_args(hint) else (hint,))
    )
    return (*types, int) if float in types else types


_TYPES = {name: types_of(hint) for name, hint in get_type_hints(RunRecord).items()}


def read_record(path: Path) -> RunRecord:
    """Read a record.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no record, or is larger than one can be.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES} bytes")
    return RunRecord.from_json(data)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content so that a reader sees the old or the new one, never a part.

    Raises:
        OSError: The directory is gone, the disk full, …; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
