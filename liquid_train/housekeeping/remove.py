"""Removing what may go, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from liquid_telemetry.live.archive import MANIFEST
from liquid_train.housekeeping.folders import RunFolder, walk

CHECKPOINTS = ("none", "best", "all")
_WITH_CHECKPOINTS = (MANIFEST, "config.yaml")


def going(run: RunFolder, checkpoints: str) -> list[Path]:
    """Return what of a run's directory goes, the manifest last: without it nobody would know it for a run.

    Args:
        run: The run.
        checkpoints: Which of its checkpoints stay, with what is needed to use them: ``none``, ``best`` (those called
            so; of a run that has no such, all) or ``all``. A run without checkpoints goes as a whole.
    """
    kept = set(_kept(run.path / "checkpoints", checkpoints))
    if not kept:
        return [*sorted(path for path in run.path.iterdir() if path.name != MANIFEST), run.path / MANIFEST]
    inside = (run.path / "checkpoints").iterdir()
    others = (path for path in run.path.iterdir() if path.name not in (*_WITH_CHECKPOINTS, "checkpoints"))
    return sorted([*others, *(path for path in inside if path not in kept)])


def _kept(folder: Path, checkpoints: str) -> Iterator[Path]:
    if checkpoints == "none" or folder.is_symlink() or not folder.is_dir():
        return
    found = list(folder.iterdir())
    best = [path for path in found if path.name.startswith("best")]
    yield from best if checkpoints == "best" and best else found


def bytes_of(paths: list[Path]) -> int:
    """Bytes of files and folders, of links their own."""
    total = 0
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            total += sum(entry.stat(follow_symlinks=False).st_size for entry in walk(path))
        else:
            total += path.lstat().st_size
    return total


def remove(run: RunFolder, checkpoints: str) -> int:
    """Remove what goes of a run; return its bytes. Links are removed, never what they lead to.

    Raises:
        OSError: something cannot be removed; the manifest is then still there.
    """
    if run.path.is_symlink():
        raise OSError(0, "has become a link", os.fspath(run.path))
    paths = going(run, checkpoints)
    freed = bytes_of(paths)
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if run.path / MANIFEST in paths:
        run.path.rmdir()
    return freed


def remove_folder(path: Path) -> None:
    """Remove a folder that is no link.

    Raises:
        OSError: it is one, or cannot be removed.
    """
    shutil.rmtree(path)
