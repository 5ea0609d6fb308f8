"""`liquid-train doctor`: is this machine fit to train and to be watched."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from liquid_train.cli.options import Options

DESCRIPTION = """Check this machine and the stack that watches it, and say for each finding what to do.

  liquid-train doctor                                    this machine, and what runs of the stack on loopback
  liquid-train doctor --prometheus http://mon:9090       a Prometheus elsewhere: a problem if it does not answer
  liquid-train doctor --test-alert                       send an alert that ends by itself after two minutes
  liquid-train doctor --json | jq '.findings[] | select(.status == "problem")'

A server that was not named and is not there is no problem. A user and password in a URL are used and not shown;
Grafana also takes $GRAFANA_TOKEN, OTLP the standard OTEL_EXPORTER_OTLP_* variables. Nothing is changed, but for the
test alert that you ask for.

exit codes: 0 without a problem (warnings are none), 1 with one, or for a mistake in the options."""


def url(text: str) -> str:
    """Read the base URL of a server.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(character.isspace() for character in text):
        shown = text.rpartition("@")[2]
        raise argparse.ArgumentTypeError(f"{shown!r} must be a URL as http://HOST:PORT")
    return text


def parser() -> Options:
    """Return the parser of the options."""
    from liquid_train.doctor.examine import DEFAULTS

    made = Options("doctor", DESCRIPTION)
    for name, default in DEFAULTS.items():
        made.add_argument(f"--{name}", type=url, metavar="URL", help=f"where it serves (default: {default}, if "
                          "something is there)")  # fmt: skip
    made.add_argument("--test-alert", nargs="?", const="warning", choices=("warning", "critical"), metavar="SEVERITY",
                      help="send a test alert, warning (the default) or critical")  # fmt: skip
    made.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of the run directories, "
                      "whose disk is looked at (default: %(default)s)")  # fmt: skip
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def doctor(arguments: Sequence[str]) -> int:
    """Check, print, and return 0 when there is no problem, else 1.

    Raises:
        InputError: an option is wrong.
    """
    from liquid_train.doctor import report
    from liquid_train.doctor.examine import DEFAULTS, Wanted, examine
    from liquid_train.doctor.finding import PROBLEM

    options = parser().parse_args(arguments)
    named = {name: given for name in DEFAULTS if (given := getattr(options, name)) is not None}
    findings = examine(Wanted(named, options.test_alert, options.runs))
    sys.stdout.write(report.as_json(findings) if options.json else report.text(findings))
    return int(report.count(findings, PROBLEM) > 0)
