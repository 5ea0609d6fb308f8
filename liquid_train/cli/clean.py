"""`liquid-train clean`: what runs left may go, by rules; and how much there is."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from liquid_telemetry.spool import spool_dir
from liquid_train.cli.clean_tables import show_capacity, show_decisions, show_leftovers
from liquid_train.cli.options import Options, at_least
from liquid_train.errors import InputError
from liquid_train.housekeeping.capacity import served, written
from liquid_train.housekeeping.folders import RunFolder, find_folders
from liquid_train.housekeeping.live import DAY, why_live
from liquid_train.housekeeping.remove import CHECKPOINTS, bytes_of, going, remove, remove_folder
from liquid_train.housekeeping.retention import Decision, Rules, decide
from liquid_train.housekeeping.spool import leftovers
from liquid_train.housekeeping.units import read_age, read_size, size

DESCRIPTION = """Delete runs by rules, or report what they take. Shows what goes and why, and asks before it deletes.

  liquid-train clean --older-than 30d --dry-run       what would go
  liquid-train clean --older-than 30d --keep 10       the newest ten stay whatever their age
  liquid-train clean --max-size 20GB --yes            the oldest go first; for cron
  liquid-train clean --older-than 90d --keep-checkpoints best
  liquid-train clean --spool                          what dead processes left in the spool
  liquid-train clean --report                         bytes by run, a day, and series that Prometheus stores

A run that is live is never touched, nor what is no run directory (it has no telemetry.json); links are not
followed. exit codes: 0; 1 for a mistake in the options, or when something could not be deleted.
docs/housekeeping.md has the rules in full."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Options("clean", DESCRIPTION)
    made.add_argument(
        "--dir", type=Path, default=Path("runs"), help="folder that holds the runs (default: runs)"
    )
    made.add_argument("--older-than", type=read_age, metavar="AGE", help="delete runs last written to before that: "
                      "12h, 30d, 8w")  # fmt: skip
    made.add_argument("--keep", type=at_least(0), metavar="N", help="keep the newest N whatever the other rules say; "
                      "alone, delete all others")  # fmt: skip
    made.add_argument("--max-size", type=read_size, metavar="SIZE", help="delete the oldest until all runs together "
                      "take no more: 500MB, 20GB")  # fmt: skip
    made.add_argument("--keep-checkpoints", choices=CHECKPOINTS, default="none", help="of the runs to delete keep "
                      "these checkpoints, with telemetry.json and config.yaml (default: %(default)s)")  # fmt: skip
    made.add_argument("--spool", action="store_true", help="delete what processes left in the spool that died while no "
                      "exporter lived, a day old (or --older-than)")  # fmt: skip
    made.add_argument("--dry-run", action="store_true", help="only show what would go")
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument(
        "--report", action="store_true", help="show what runs take and how fast it grows; delete nothing"
    )
    made.add_argument("--scrape-interval", type=read_age, default=15.0, metavar="TIME", help="of Prometheus, for "
                      "--report (default: 15s)")  # fmt: skip
    return made


def clean(arguments: Sequence[str]) -> int:
    """Delete or report, and return the exit code.

    Raises:
        InputError: there is no such folder, no rule, nobody to ask, or an option is wrong.
    """
    options = parser().parse_args(arguments)
    rules = Rules(options.older_than, options.keep, options.max_size)
    if not (options.report or options.spool) and rules.none:
        raise InputError(
            "clean: no rule; give --older-than 30d, --keep 10 or --max-size 20GB, or --spool, or --report"
        )
    if options.report:
        return _report(options)
    seats = leftovers(spool_dir(), options.older_than or DAY) if options.spool else []
    failed = _clean_spool(seats, options) if options.spool else 0
    if not rules.none and (not options.spool or options.dir.is_dir()):
        failed += _clean_runs(rules, options)
    return int(failed > 0)


def _report(options: argparse.Namespace) -> int:
    runs, _ = find_folders(options.dir)
    spools = [Path(run.manifest["spool"]) for run in runs if isinstance(run.manifest.get("spool"), str)]
    show_capacity([written(run) for run in runs], served([*spools, spool_dir()]), options.scrape_interval)
    return 0


def _clean_runs(rules: Rules, options: argparse.Namespace) -> int:
    runs, strangers = find_folders(options.dir)

    def gain(run: RunFolder) -> int:
        return bytes_of(going(run, options.keep_checkpoints))

    decisions = decide(runs, rules, time.time(), gain)
    show_decisions(decisions, strangers)
    chosen = [decision for decision in decisions if decision.goes]
    freed = sum(decision.frees for decision in chosen)
    what = f"{len(chosen)} run{'s' if len(chosen) != 1 else ''}, {size(freed)}"
    if options.dry_run or not chosen or not _agreed(f"Delete {what}?", options):
        sys.stdout.write(f"{what} would go; nothing was deleted\n" if chosen else "nothing to delete\n")
        return 0
    return _delete_runs(chosen, options.keep_checkpoints)


def _delete_runs(chosen: Sequence[Decision], checkpoints: str) -> int:
    """Delete, the oldest first, what is still not live; return how many could not be."""
    freed = count = failed = 0
    for decision in reversed(chosen):
        why = why_live(decision.run, time.time())
        if why is not None:
            sys.stdout.write(f"kept {decision.run.path}: {why}\n")
            continue
        try:
            freed += remove(decision.run, checkpoints)
            count += 1
        except OSError as error:
            failed += 1
            sys.stderr.write(f"liquid-train: {decision.run.path}: {error.strerror or error}\n")
    sys.stdout.write(f"deleted {count} run{'s' if count != 1 else ''}, {size(freed)}\n")
    return failed


def _clean_spool(seats: Sequence[tuple[Path, str]], options: argparse.Namespace) -> int:
    show_leftovers(seats)
    what = f"{len(seats)} seat{'s' if len(seats) != 1 else ''} in the spool"
    if options.dry_run or not seats or not _agreed(f"Delete {what}?", options):
        sys.stdout.write(
            f"{what} would go; nothing was deleted\n" if seats else "nothing to delete in the spool\n"
        )
        return 0
    failed = 0
    for seat, _ in seats:
        try:
            remove_folder(seat)
        except OSError as error:
            failed += 1
            sys.stderr.write(f"liquid-train: {seat}: {error.strerror or error}\n")
    sys.stdout.write(f"deleted {len(seats) - failed} of {what}\n")
    return failed


def _agreed(question: str, options: argparse.Namespace) -> bool:
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise InputError("clean: nobody to ask, for this is no terminal; say --yes, or --dry-run to look")
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
