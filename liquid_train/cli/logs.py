"""`liquid-train logs FILE…`: what event logs tell, in one report."""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from liquid_train.cli.options import Options, at_least
from liquid_train.errors import InputError
from liquid_train.logs.files import find_logs, total_bytes
from liquid_train.logs.report import LEVELS, Choice, report
from liquid_train.logs.store import Store

FOUND = 3
"""Exit code when something was found that `--fail-on` names."""
FAIL_ON = ("errors", "failures", "anomalies", "unparsable")
DESCRIPTION = """Read event logs, also rotated, compressed, damaged and of many runs, and report levels, error and slow
rates, failures by cause, the slowest epochs, a time line, and what differs from earlier runs of a model.

  liquid-train logs                                   every run in runs/
  liquid-train logs runs/RUN/events.jsonl old.jsonl.gz
  liquid-train logs --since 24h --html report.html runs
  liquid-train logs --json --fail-on failures,anomalies runs > report.json

Rates are shares of log lines. A line that is no JSON object is counted, shown and in no rate.

exit codes: 0; 3 when something was found that --fail-on names; 1 for a mistake in the options or a file that is
not there. docs/logs.md describes every number."""
_AGES = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Options("logs", DESCRIPTION)
    made.add_argument("files", nargs="*", default=["runs"], metavar="FILE", help="event logs, or folders in which "
                      "all of them are read (default: runs)")  # fmt: skip
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    made.add_argument("--html", metavar="FILE", type=Path, help="also write the report as a page with plots")
    made.add_argument("--since", type=moment, metavar="TIME", help="from this time on: 2026-11-24T10:00 (UTC unless "
                      "it says another zone), or an age such as 30m, 24h, 7d")  # fmt: skip
    made.add_argument("--until", type=moment, metavar="TIME", help="up to this time")
    made.add_argument("--run", metavar="ID", help="this run alone")
    made.add_argument("--model", metavar="NAME", help="runs of this model")
    made.add_argument("--level", choices=LEVELS, help="lines of this level and more severe ones")
    made.add_argument("--slow", type=factor, default=2.0, metavar="X", help="an operation is slow that takes more than "
                      "X times the median of its kind (default: %(default)s)")  # fmt: skip
    made.add_argument("--top", type=at_least(1), default=10, metavar="N", help="how many of the slowest "
                      "(default: %(default)s)")  # fmt: skip
    made.add_argument("--fail-on", type=causes, default=(), metavar="WHAT", help="exit with 3 if there are any: "
                      f"{', '.join(FAIL_ON)}; several with commas")  # fmt: skip
    made.add_argument("--memory", default="1GB", help="most that DuckDB takes; the rest goes to temporary files "
                      "(default: %(default)s)")  # fmt: skip
    return made


def logs(arguments: Sequence[str]) -> int:
    """Report, and return the exit code.

    Raises:
        InputError: there is no such file, DuckDB is missing, or an option is wrong.
    """
    options = parser().parse_args(arguments)
    files = find_logs(options.files)
    if options.html is not None and not options.html.parent.is_dir():
        raise InputError(f"logs: --html={str(options.html)!r}: there is no such folder to write it to")
    choice = Choice(
        options.since, options.until, options.run, options.model, options.level, options.slow, options.top
    )
    with Store(options.memory) as store:
        _read(store, files)
        found = report(store, choice)
    if options.html is not None:
        _write(options.html, found)
    if options.json:
        _print(json.dumps(found, allow_nan=False, indent=1) + "\n")
    else:
        from liquid_train.logs.table import show

        show(found)
        if options.html is not None:
            sys.stdout.write(f"page  {options.html}\n")
    return FOUND if any(occurs(found, cause) for cause in options.fail_on) else 0


def occurs(found: dict[str, Any], cause: str) -> bool:
    """Whether a report has something of what `--fail-on` can name."""
    if cause == "errors":
        return bool(found["rates"]["error_lines"])
    if cause == "unparsable":
        return bool(found["lines"]["unparsable"] or found["files"]["damaged"])
    return bool(found[cause])


def _read(store: Store, files: Sequence[Path]) -> None:
    """Read with a bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        store.read(files)
        return
    columns = SpinnerColumn(), BarColumn(), DownloadColumn(), TimeElapsedColumn()
    done = threading.Event()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("read", total=total_bytes(files))

        def follow() -> None:
            while not done.wait(0.2):
                bar.update(task, completed=store.bytes_read())

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            store.read(files)
        finally:
            done.set()
            follower.join()


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"logs: the report cannot be written to the output ({error.strerror})") from error


def _write(path: Path, found: dict[str, Any]) -> None:
    from liquid_train.logs.page import page

    try:
        path.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise InputError(f"logs: --html={str(path)!r}: cannot be written ({error.strerror})") from error


def moment(text: str) -> datetime:
    """Read a time, or an age, as a time in UTC without its zone.

    Raises:
        ArgumentTypeError: it is neither.
    """
    age = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    try:
        if age is not None:
            time = datetime.now(timezone.utc) - timedelta(**{_AGES[age[2]]: int(age[1])})
        else:
            time = datetime.fromisoformat(text.replace("Z", "+00:00"))
        zoned = time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)
        return zoned.astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a time such as 2026-11-24T10:00 or an age such as 30m, 24h, 7d"
        ) from error


def factor(text: str) -> float:
    """Read a number above 1.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 1")
    return value


def causes(text: str) -> tuple[str, ...]:
    """Read what `--fail-on` names.

    Raises:
        ArgumentTypeError: one of them is unknown.
    """
    named = tuple(part.strip() for part in text.split(","))
    for name in named:
        if name not in FAIL_ON:
            raise argparse.ArgumentTypeError(f"{name!r} must be one of {', '.join(FAIL_ON)}")
    return named
