"""Files that a benchmark keeps: the baseline that it is compared with, and a line for every time it ran."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from liquid_telemetry.spool import write_atomically
from liquid_train.bench.measure import REFERENCE
from liquid_train.errors import InputError

FORMAT = 1


@dataclass(frozen=True)
class Measured:
    """One run of a benchmark, as it is kept.

    Args:
        machine_key: Of the machine.
        model_key: Of the architecture.
        machine: In words.
        model_version: Whose weights.
        time: ISO 8601, UTC.
        blocks: Median seconds of each block, by case; with those of the reference work.
    """

    machine_key: str
    model_key: str
    machine: dict[str, Any]
    model_version: str
    time: str
    blocks: dict[str, list[float]]

    def median(self, case: str) -> float:
        """Median seconds of a case."""
        return median(self.blocks[case])

    def relative(self, case: str) -> list[float]:
        """Blocks of a case in units of the reference work of the same round."""
        pairs = zip(self.blocks[case], self.blocks[REFERENCE], strict=True)
        return [seconds / max(reference, 1e-12) for seconds, reference in pairs]

    def write(self, path: Path) -> None:
        """Write it as a baseline.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps({"format": FORMAT, **vars(self)}, indent=1) + "\n").encode())
        except OSError as error:
            raise InputError(f"bench: baseline {path}: cannot be written: {error.strerror}") from error


def read_baseline(path: Path) -> Measured:
    """Read a baseline.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        data = json.loads(path.read_bytes())
        if data.pop("format") != FORMAT:
            raise ValueError("of another version")
        found = Measured(**data)
        _check_blocks(found.blocks)
    except OSError as error:
        raise InputError(
            f"bench: baseline {path}: {error.strerror}; measure one with --update-baseline"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"bench: baseline {path}: is damaged; measure a new one with --update-baseline"
        ) from error
    return found


def _check_blocks(blocks: dict[str, list[float]]) -> None:
    if REFERENCE not in blocks or len({len(found) for found in blocks.values()}) != 1:
        raise ValueError("not the same number of blocks for every case and the reference work")
    if any(not 0 < seconds < math.inf for found in blocks.values() for seconds in found):
        raise ValueError("a time that is not positive")


def check_comparable(baseline: Measured, now: Measured, path: Path) -> None:
    """Require the same machine, architecture and at least one case in common.

    Raises:
        InputError: times cannot be compared.
    """
    if baseline.machine_key != now.machine_key:
        told = ", ".join(f"{name} {baseline.machine.get(name)}" for name in ("cpu", "cores", "threads"))
        raise InputError(f"bench: baseline {path}: is of another machine or setting ({told}); measure one here with "
                         "--update-baseline")  # fmt: skip
    if baseline.model_key != now.model_key:
        raise InputError(f"bench: baseline {path}: is of another model, {baseline.model_key}; give that of "
                         f"{now.model_key}, or measure one with --update-baseline")  # fmt: skip
    if not (baseline.blocks.keys() & now.blocks.keys()) - {REFERENCE}:
        cases = ", ".join(sorted(baseline.blocks.keys() - {REFERENCE}))
        raise InputError(f"bench: baseline {path}: has only the cases {cases}; choose these with --batch and --length, "
                         "or measure a new one with --update-baseline")  # fmt: skip


def append_history(path: Path, line: dict[str, Any]) -> None:
    """Add a line to the history.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise InputError(f"bench: history {path}: cannot be written: {error.strerror}") from error


def read_history(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a history, the oldest first; a damaged one is left out."""
    for text in path.read_text("utf-8", "replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("cases"), dict):
            yield line
