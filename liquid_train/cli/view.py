"""`liquid-train view [DIR]`: the live page on runs that ended long ago."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from liquid_train.cli.launch import port
from liquid_train.cli.options import Options
from liquid_train.errors import InputError

DESCRIPTION = """Show the runs in a folder as the live page shows those of an exporter: curves, epochs, where the time
went, events and how each run ended. Tick several runs to compare them. A run that is still going on is followed.

  liquid-train view                     every run in runs/
  liquid-train view runs/20261124-1030  one run
  liquid-train view --port 8080 --no-browser /data/runs

Ctrl-C ends it. Nothing in the folder is changed."""


def parser() -> Options:
    """Return the parser of the options."""
    made = Options("view", DESCRIPTION)
    made.add_argument("dir", nargs="?", default="runs", metavar="DIR", help="folder with run directories, or one of "
                      "them (default: %(default)s)")  # fmt: skip
    made.add_argument("--host", default="127.0.0.1", help="address to serve at (default: %(default)s)")
    made.add_argument("--port", type=port, default=0, help="its port (default: a free one)")
    made.add_argument("--no-browser", action="store_true", help="only print the address")
    return made


def view(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C or SIGTERM, and return their exit code.

    Raises:
        InputError: there is no run in the folder, the address cannot be had, or an option is wrong.
    """
    from liquid_telemetry.exporter.viewer import serve
    from liquid_telemetry.live.archive import MANIFEST, find_runs

    options = parser().parse_args(arguments)
    folder = Path(options.dir)
    if not folder.is_dir():
        raise InputError(f"view: DIR={options.dir!r}: no such folder; name one that holds runs")
    count = sum(1 for _ in find_runs(folder))
    if not count:
        raise InputError(f"view: DIR={options.dir!r}: no run in it; a run directory holds a {MANIFEST}")

    def ready(url: str) -> None:
        runs = f"{count} run{'s' if count > 1 else ''}"
        sys.stdout.write(f"{runs} of {folder} at {url} until Ctrl-C\n")
        sys.stdout.flush()
        if not options.no_browser and sys.stdout.isatty():
            webbrowser.open(url)

    try:
        ended_by = serve(folder, options.host, options.port, ready)
    except OSError as error:
        raise InputError(
            f"view: cannot serve at {options.host}:{options.port}: {error.strerror or error}; "
            "choose another --host or --port"
        ) from error
    return 128 + ended_by
