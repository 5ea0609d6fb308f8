"""The parser of subcommands that are no LightningCLI's."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from liquid_train.errors import InputError


class Options(argparse.ArgumentParser):
    """Parses the options of one subcommand; a mistake is one clear line.

    Args:
        command: The subcommand's name.
        description: What `--help` shows, its line breaks kept.
        usage: The usage line, where argparse would not find it.
    """

    def __init__(self, command: str, description: str, usage: str | None = None) -> None:
        super().__init__(
            prog=f"liquid-train {command}",
            usage=usage,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._command = command

    def error(self, message: str) -> NoReturn:
        """Refuse the options.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self._command}: {message}; see liquid-train {self._command} --help")


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers of at least `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return int(text)

    return read
