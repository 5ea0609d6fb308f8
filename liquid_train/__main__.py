"""The program `liquid-train`, also `python -m liquid_train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from liquid_train.errors import InputError

INTERRUPTED = 130
TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with the arguments `argv`, those of the process by default.

    Returns:
        The exit code: 0 on success, 1 when what the user gave is wrong (said in one line), 130 on Ctrl-C,
        143 on SIGTERM. An exception from the user's own code is not caught.
    """
    try:
        from liquid_train.cli.app import run

        run(list(sys.argv[1:] if argv is None else argv))
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


def input_error(error: BaseException | None) -> InputError | None:
    """Return the `InputError` that `error` is, or that it was raised from."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def _exit_code(stop: SystemExit) -> int:
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    if isinstance(stop, SIGTERMException):
        return TERMINATED
    if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into sys.exit(1)
        return INTERRUPTED
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


if __name__ == "__main__":
    sys.exit(main())
