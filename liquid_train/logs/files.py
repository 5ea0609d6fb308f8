"""Which files hold event logs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from liquid_train.errors import InputError

_LOG = re.compile(r"events(\.rank\d+)?(\.\d+)?\.jsonl(\.\d+)?(\.gz|\.zst)?")


def find_logs(names: Iterable[str]) -> list[Path]:
    """Return files as named, and of folders every event log in them, its rotated and compressed parts included.

    A file that is named twice is returned once. Links to folders are not followed.

    Raises:
        InputError: there is no such file, or no log in a folder.
    """
    found: dict[Path, Path] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            logs = sorted(log for log in path.rglob("events*.jsonl*") if is_log(log))
            if not logs:
                raise InputError(
                    f"logs: {name!r}: no events.jsonl in this folder; name a log or a folder of runs"
                )
        elif path.exists():
            logs = [path]
        else:
            raise InputError(f"logs: {name!r}: no such file or folder")
        found |= {log.resolve(): log for log in logs}
    return list(found.values())


def is_log(path: Path) -> bool:
    """Whether a file is called as an event log or a part of one is."""
    return _LOG.fullmatch(path.name) is not None and path.is_file()


def total_bytes(files: Iterable[Path]) -> int:
    """Bytes of all files that are there."""
    return sum(file.stat().st_size for file in files if file.exists())
