"""A name for a command, for the case that it ends before there is a model to name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

_PYTHON = re.compile(r"(python|pypy)[\d.]*t?(\.exe)?")
_OPTIONS_WITH_A_VALUE = ("-W", "-X", "--check-hash-based-pycs")
_LONGEST = 100


def name_of(command: Sequence[str]) -> str:
    """Return the script or module that a command runs, else the program.

    ``python -u train.py --lr 1`` is ``train.py``, ``python -m pkg.train`` is ``pkg.train``, ``torchrun --standalone
    train.py`` is ``train.py``, ``liquid-train fit`` is ``liquid-train``.
    """
    program = PurePath(command[0]).name
    if _PYTHON.fullmatch(program):
        program = _of_python(command[1:]) or program
    if not program.endswith(".py"):
        scripts = (PurePath(word).name for word in command[1:] if word.endswith(".py") and word[0] != "-")
        program = next(scripts, program)
    return program[:_LONGEST]


def _of_python(arguments: Sequence[str]) -> str | None:
    words = iter(arguments)
    for word in words:
        if word == "-m":
            return next(words, None)
        if word.startswith("-m"):
            return word[2:]
        if word in _OPTIONS_WITH_A_VALUE:
            next(words, None)
        elif word == "-c" or word == "-":
            return None
        elif not word.startswith("-"):
            return PurePath(word).name
    return None
