"""`liquid-train run -- COMMAND`: any training command with the exporter beside it."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from liquid_train.cli.options import Options
from liquid_train.errors import InputError

DESCRIPTION = """Run a training command, in a container also as its first process: pass signals on to it, collect
what it leaves behind, count its end exactly once, wait until Prometheus has seen that, and end with its exit code.

  liquid-train run -- python train.py --lr 0.1
  liquid-train run --host 0.0.0.0 -- liquid-train fit --config configs/japanese_vowels_cfc.yaml
  liquid-train run --model-name resnet --linger 60 -- torchrun --standalone --nproc-per-node 2 train.py

A command that fails before any run has begun (a module that cannot be imported, a mistake in its options) counts as
a failed job, so that TrainingJobFailed fires. A command that ends well without a run counts as nothing.

exit codes: the command's own; 128 + N when signal N killed it (137 SIGKILL, 139 segmentation fault, 143 SIGTERM);
127 when there is no such command, 126 when it cannot be executed, 1 for a mistake in the options of `run`.

docs/launcher.md shows it under Docker, Kubernetes, Slurm and systemd."""


def seconds(text: str) -> float:
    """Read a number of seconds.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, 0 or more")
    return value


def port(text: str) -> int:
    """Read a TCP port.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} must be 0 (a free one) to 65535")
    return int(text)


def parser() -> Options:
    """Return the parser of the options before `--`."""
    made = Options("run", DESCRIPTION, usage="%(prog)s [options] -- COMMAND [ARGUMENT ...]")
    made.add_argument("--model-name", "--model_name", metavar="NAME", help="label of a failure before any run "
                      "has begun (default: the script's name)")  # fmt: skip
    made.add_argument("--linger", type=seconds, metavar="SECONDS", help="how long the end may wait to be scraped "
                      "twice (default: 30; at a terminal 0, because the exporter outlives the launcher)")  # fmt: skip
    made.add_argument("--host", default="127.0.0.1", help="address that metrics are served at, unless an exporter "
                      "serves already; 0.0.0.0 in a pod (default: %(default)s)")  # fmt: skip
    made.add_argument(
        "--port", type=port, default=9464, help="its port; 0 for a free one (default: %(default)s)"
    )
    made.add_argument("--dir", default="runs", help="where the log of a command goes that failed before any run "
                      "has begun (default: %(default)s)")  # fmt: skip
    made.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run")
    return made


def run(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name, and return its exit code.

    Raises:
        InputError: there is none, or an option is wrong.
    """
    head = list(arguments)
    tail = head[head.index("--") :] if "--" in head else []
    options = parser().parse_args(head[: len(head) - len(tail)])
    command = [*options.command, *tail] if options.command else tail[1:]
    if not command:
        raise InputError("run: no command; write it after --, as in liquid-train run -- python train.py")
    if sys.platform == "win32":
        raise InputError("run: needs POSIX signals; on Windows start the command itself")
    from liquid_telemetry.launcher import launch

    return launch(
        command,
        host=options.host,
        port=options.port,
        model_name=options.model_name,
        linger=options.linger,
        dir=options.dir,
    )
