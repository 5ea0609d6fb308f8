"""A parser whose errors are one line."""

from __future__ import annotations

import re
from argparse import RawDescriptionHelpFormatter
from typing import NoReturn

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from liquid_train.errors import InputError


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines of a description as they are."""


class Parser(LightningArgumentParser):
    """LightningCLI's parser that raises `InputError` where argparse prints its usage and exits."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `message` as one line."""
        raise InputError(one_line(message)) from ex


def one_line(message: str) -> str:
    """Return what matters of one of jsonargparse's messages.

    Where a value fits none of several types, the message is a list with one reason for each; the last
    that is not about the absence of a value is the one that helps.
    """
    message = re.sub(r'Parser key "(.+?)":\s+', r"\1: ", message)
    listed = re.findall(r"^\s*- (.+)$", message, re.MULTILINE)
    reasons = [r for r in listed if "NoneType" not in r and "Does not validate" not in r]
    if not reasons:
        return " ".join(message.split())
    key = message.split(":", 1)[0]
    given = re.search(r"^\s*Given value: (?!NestedArg)(.+)$", message, re.MULTILINE)
    return f"{key}: {reasons[-1]}" + (f", given: {given[1]}" if given else "")
