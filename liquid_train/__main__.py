"""The program `liquid-train`, also `python -m liquid_train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version

from liquid_train.cli.terminate import TERMINATED, exit_on_sigterm
from liquid_train.errors import InputError

INTERRUPTED = 130
TRAINER = ("fit", "validate", "test", "predict")
"""Subcommands of the LightningCLI."""
COMMANDS = {
    "doctor": "liquid_train.cli.doctor:doctor",
    "run": "liquid_train.cli.launch:run",
    "clean": "liquid_train.cli.clean:clean",
    "logs": "liquid_train.cli.logs:logs",
    "export": "liquid_train.cli.export:export",
    "bench": "liquid_train.cli.bench:bench",
    "serve": "liquid_train.cli.serve:serve",
    "view": "liquid_train.cli.view:view",
}
"""Subcommands that are no LightningCLI's, and the functions that get their arguments and return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with the arguments `argv`, those of the process by default.

    Returns:
        The exit code: 0 on success, 1 when what the user gave is wrong (said in one line), 130 on Ctrl-C,
        143 on SIGTERM, of `run` that of the command. An exception from the user's own code is not caught.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] in (["--version"], ["-V"]):
            sys.stdout.write(f"liquid-train {version('liquid-train')}\n")
            return 0
        check_subcommand(arguments)
        if arguments and arguments[0] in COMMANDS:
            module, _, name = COMMANDS[arguments[0]].partition(":")
            return int(getattr(import_module(module), name)(arguments[1:]))
        with exit_on_sigterm():
            from liquid_train.cli.app import run

            run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        return _exit_code(stop)
    except Exception as error:
        mine = input_error(error)
        if mine is None:
            raise
        sys.stderr.write(f"liquid-train: error: {mine}\n")
        return 1
    return 0


def check_subcommand(arguments: Sequence[str]) -> None:
    """Require a subcommand that there is.

    Raises:
        InputError: the first of the arguments names none.
    """
    if arguments and arguments[0].startswith("-"):
        return
    if not arguments or arguments[0] not in (*TRAINER, *COMMANDS):
        given = f"{arguments[0]!r} is no subcommand" if arguments else "a subcommand is missing"
        near = get_close_matches(arguments[0], (*TRAINER, *COMMANDS), 1) if arguments else []
        meant = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"{given}: {meant}there are {', '.join((*TRAINER, *COMMANDS))}; see liquid-train --help"
        )


def input_error(error: BaseException | None) -> InputError | None:
    """Return the `InputError` that `error` is, or that it was raised from."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def _exit_code(stop: SystemExit) -> int:
    if any(kind.__name__ == "SIGTERMException" for kind in type(stop).__mro__):
        return TERMINATED
    if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into sys.exit(1)
        return INTERRUPTED
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


if __name__ == "__main__":
    sys.exit(main())
