"""Run directories, told from everything else by their manifest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liquid_telemetry.live.archive import MANIFEST
from liquid_train.errors import InputError

KINDS = ("events", "traces", "history", "checkpoints", "other")
_STEM = re.compile(r"(events|traces|history)\b.*\.jsonl")
_MAX_MANIFEST = 1_000_000


@dataclass(frozen=True)
class RunFolder:
    """A run directory.

    Args:
        path: Where it is.
        manifest: What its ``telemetry.json`` says.
        touched: Unix seconds at which something in it was last written to.
        sizes: Bytes by kind.
    """

    path: Path
    manifest: dict[str, Any]
    touched: float
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """Its identifier; also where the folder was renamed."""
        return str(self.manifest["run_id"])

    @property
    def size(self) -> int:
        """Bytes of all that is in it."""
        return sum(self.sizes.values())


@dataclass(frozen=True)
class Stranger:
    """Something beside the runs that is left alone, and why."""

    path: Path
    why: str


def find_folders(parent: Path) -> tuple[list[RunFolder], list[Stranger]]:
    """Return the run directories in ``parent``, the one written to last first, and what else is there.

    Raises:
        InputError: ``parent`` is no folder, or is a run directory itself.
    """
    if not parent.is_dir():
        raise InputError(f"clean: --dir={str(parent)!r}: no such folder; name one that holds runs")
    if (parent / MANIFEST).is_file():
        raise InputError(f"clean: --dir={str(parent)!r}: is a run itself; name the folder that holds it")
    runs, strangers = [], []
    for path in sorted(parent.iterdir()):
        found = read_folder(path)
        if isinstance(found, RunFolder):
            runs.append(found)
        else:
            strangers.append(found)
    return sorted(runs, key=lambda run: (run.touched, run.run_id), reverse=True), strangers


def read_folder(path: Path) -> RunFolder | Stranger:
    """Return the run directory that ``path`` is, or why it is none."""
    if path.is_symlink():
        return Stranger(path, "a link")
    if not path.is_dir():
        return Stranger(path, "no folder")
    manifest = path / MANIFEST
    if manifest.is_symlink() or not manifest.is_file():
        return Stranger(path, f"no run: it has no {MANIFEST}")
    try:
        with manifest.open("rb") as file:
            said = json.loads(file.read(_MAX_MANIFEST))
        if not isinstance(said, dict) or not isinstance(said.get("run_id"), str) or "events" not in said:
            return Stranger(path, f"its {MANIFEST} is not of a run")
        return _measured(path, said)
    except (ValueError, RecursionError):
        return Stranger(path, f"its {MANIFEST} is damaged")
    except OSError as error:
        return Stranger(path, f"cannot be read: {error.strerror}")


def _measured(path: Path, manifest: dict[str, Any]) -> RunFolder:
    sizes, touched = dict.fromkeys(KINDS, 0), (path / MANIFEST).stat().st_mtime
    for entry in walk(path):
        status = entry.stat(follow_symlinks=False)
        sizes[kind_of(Path(entry.path).relative_to(path))] += status.st_size
        touched = max(touched, status.st_mtime)
    return RunFolder(path, manifest, touched, sizes)


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything in a folder but folders; of a link itself, never what it leads to."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path))
            else:
                yield entry


def kind_of(inside: Path) -> str:
    """What a file in a run directory is, by its path from there."""
    if inside.parts[0] == "checkpoints":
        return "checkpoints"
    found = _STEM.match(inside.parts[0])
    return found[1] if found is not None else "other"
