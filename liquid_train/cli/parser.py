"""A parser whose errors are one line."""

from __future__ import annotations

import re
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from liquid_train.errors import InputError


class Parser(LightningArgumentParser):
    """LightningCLI's parser that raises `InputError` where argparse prints its usage and exits."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `message` as one line."""
        raise InputError(one_line(message)) from ex


def one_line(message: str) -> str:
    """Return what matters of one of jsonargparse's messages.

    Where a value fits none of several types, the message is a list with one reason for each; the first
    that is not about the absence of a value is the one that helps.
    """
    key = re.match(r'Parser key "(.+?)":\s', message)
    reasons = [r for r in re.findall(r"^\s*- (.+)$", message, re.MULTILINE) if "NoneType" not in r]
    if not key or not reasons:
        return " ".join(message.split())
    given = re.search(r"^Given value: (?!NestedArg)(.+)$", message, re.MULTILINE)
    return f"{key[1]}: {reasons[0]}" + (f", given: {given[1]}" if given else "")
