"""Fail in every way beside a real Prometheus and Alertmanager, and print what was seen.

PYTHONPATH=tests python -m failures [--quick] [--at-once N] [SCENARIO ...]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from failures.plays import Play, Verdict
from failures.scenarios import SCENARIOS, Scenario
from failures.stage import Stage, stage

_SETTLE = {True: 3.0, False: 30.0}


def play(stage: Stage, scenarios: Sequence[Scenario], at_once: int, settle: float) -> list[Verdict]:
    """Play scenarios, and judge them when nothing more is to come.

    Args:
        stage: Where.
        scenarios: Which.
        at_once: How many at a time.
        settle: Seconds in which a second page or count would come.
    """
    plays = [Play(stage, scenario) for scenario in scenarios]
    with ThreadPoolExecutor(at_once) as pool:
        running = {pool.submit(one.run): one.scenario for one in plays}
        for number, done in enumerate(as_completed(running), 1):
            error = done.exception()
            told = f": {error}" if error is not None else ""
            print(f"[{number}/{len(plays)}] {running[done].name}{told}", file=sys.stderr)
    time.sleep(settle)
    return [one.verdict() for one in plays]


def table(verdicts: Sequence[Verdict]) -> str:
    """As Markdown."""
    lines = ["| what happens | counted as | told | seconds | |", "|---|---|---|---:|---|"]
    for verdict in verdicts:
        counted = ", ".join(
            f"{what} {number}" if number > 1 else what
            for what, number in verdict.totals.items()
            if what != "started"
        )
        seconds = "" if verdict.seconds is None else f"{verdict.seconds:.0f}"
        wrong = "; ".join(verdict.wrong) or "ok"
        lines.append(
            f"| {verdict.scenario.what} | {counted or 'nothing'} | {', '.join(verdict.alerts) or 'nobody'} "
            f"| {seconds} | {wrong} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Play and print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m failures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=", ".join(one.name for one in SCENARIOS)
    )
    parser.add_argument(
        "--quick", action="store_true", help="intervals of a second instead of the shipped ones"
    )
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="how many at a time (default: 2)")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - {one.name for one in SCENARIOS}:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; see --help")
    if missing := [
        program for program in ("prometheus", "prometheus-alertmanager") if shutil.which(program) is None
    ]:
        parser.error(
            f"{' and '.join(missing)} must be installed (Debian: apt-get install {' '.join(missing)})"
        )
    chosen = [one for one in SCENARIOS if not options.scenarios or one.name in options.scenarios]
    with (
        tempfile.TemporaryDirectory(prefix="failures-") as folder,
        stage(Path(folder) / "stage", shipped=not options.quick) as made,
    ):
        verdicts = play(made, chosen, options.at_once, _SETTLE[options.quick])
    print(table(verdicts))
    return 1 if any(verdict.wrong for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
