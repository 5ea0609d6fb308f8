"""An artefact: a folder with the programs of a task and a manifest, whole or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liquid_train.errors import InputError
from liquid_train.export.compare import Case, compare
from liquid_train.export.manifest import MANIFEST, describe
from liquid_train.export.programs import OneStep, WholeSequences
from liquid_train.export.targets import Target
from liquid_train.tasks.load import Trained


def check_out(out: Path, replace: bool) -> None:
    """Require a folder that does not exist yet, or an earlier artefact that may be replaced.

    Raises:
        InputError: something else is there.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not (out / MANIFEST).is_file() or out.is_symlink():
        raise InputError(
            f"export: --out {out}: exists and is no artefact of liquid-train export; choose another"
        )
    if not replace:
        raise InputError(f"export: --out {out}: exists; choose another, or replace it with --replace")


def export(
    trained: Trained,
    target: Target,
    out: Path,
    facts: Mapping[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write the programs, compare their numbers with the task's, then move them to `out` at once.

    Args:
        trained: What to export.
        target: As what.
        out: The folder; an artefact that is there is replaced.
        facts: What the manifest is to say besides.
        say: Told what is being done.

    Returns:
        The manifest.

    Raises:
        MismatchError: a program gives other numbers; nothing is left.
        OSError: the folder cannot be written; nothing is left.
    """
    programs = (WholeSequences(trained.task).eval(), OneStep(trained.task).eval())
    with _half_written(out) as folder:
        files, cases = {}, list[Case]()
        for program in programs:
            path = folder / f"{program.file}{target.ending}"
            say(f"writing {path.name}")
            target.write(program, path)
            say(f"comparing {path.name} with the checkpoint")
            cases += compare(trained.task, program, target.load(path))
            files[program.file] = path
        made = {**facts, **describe(trained, programs, files, cases)}
        made["versions"] |= target.versions()
        (folder / MANIFEST).write_text(json.dumps(made, indent=2) + "\n")
        _move(folder, out)
    return made


@contextmanager
def _half_written(out: Path) -> Iterator[Path]:
    """A folder beside `out`, on the same file system, which is gone in the end unless it has been moved."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    folder.chmod(0o777 & ~_umask())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, out: Path) -> None:
    """Put a folder in its place; what was there goes only when that has worked."""
    before = folder.with_name(f"{folder.name}.before")
    if out.exists():
        out.rename(before)
    try:
        folder.rename(out)
    except OSError:
        if before.exists():
            before.rename(out)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
