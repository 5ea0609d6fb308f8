"""Where the spool lies and whether it is safe to use."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

SPOOL_VARIABLE = "LIQUID_TELEMETRY_SPOOL"


class SpoolError(OSError):
    """The spool cannot be used; the message names the directory, the rule and the fix."""


def spool_dir() -> Path:
    """Return this user's spool on this host, created with mode 0700 when missing.

    It is ``$LIQUID_TELEMETRY_SPOOL``, else ``liquid-telemetry`` in ``$XDG_RUNTIME_DIR``, else
    ``liquid-telemetry-<uid>`` in the directory for temporary files.

    Raises:
        SpoolError: It cannot be created, is not a directory, or others could write to it.
    """
    path = _location()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpoolError(f"telemetry spool {str(path)!r} cannot be created ({error}); {_FIX}") from error
    _check_private(path)
    return path


_FIX = f"set {SPOOL_VARIABLE} to a directory that only you can write to"


def _location() -> Path:
    if chosen := os.environ.get(SPOOL_VARIABLE):
        return Path(chosen).absolute()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_ours(Path(runtime)):
        return Path(runtime) / "liquid-telemetry"
    uid = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"liquid-telemetry-{uid}"


def _is_ours(path: Path) -> bool:
    """Whether the directory is the caller's own; ``sudo`` leaves another user's in the environment."""
    try:
        return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
    except OSError:
        return False


def _check_private(path: Path) -> None:
    if not hasattr(os, "getuid"):
        return
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise SpoolError(f"telemetry spool {str(path)!r} is not a directory; {_FIX}")
    if status.st_uid != os.getuid():
        raise SpoolError(f"telemetry spool {str(path)!r} belongs to user {status.st_uid}; {_FIX}")
    if status.st_mode & 0o022:
        raise SpoolError(f"telemetry spool {str(path)!r} is writable by others; chmod 700 it, or {_FIX}")
