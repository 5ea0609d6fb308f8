"""A parser whose errors are one line."""

from __future__ import annotations

import re
from argparse import Action, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from liquid_train.errors import InputError


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines of a description as they are, and a hundred options out of the usage."""

    def add_usage(
        self, usage: str | None, actions: Iterable[Action], groups: Iterable[Any], prefix: str | None = None
    ) -> None:
        """Show the usage; of a subcommand only that it has options."""
        actions = list(actions)
        if len(actions) > 20:
            usage = "%(prog)s --config FILE [--OPTION VALUE ...]"
        super().add_usage(usage, actions, groups, prefix)

    def _get_help_string(self, action: Action) -> str:
        text = super()._get_help_string(action)
        return text if action.option_strings else whole_sentences(text)


class Parser(LightningArgumentParser):
    """LightningCLI's parser that raises `InputError` where argparse prints its usage and exits."""

    def __init__(self, *args: Any, description: str = "", **kwargs: Any) -> None:
        kwargs["formatter_class"] = HelpFormatter
        super().__init__(*args, description=whole_sentences(description), **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `message` as one line."""
        lost = re.search(r'"subcommand"|are required: \w+\.model', message)
        raise InputError(one_line(message) + ("; see liquid-train --help" if lost else "")) from ex


def check_configs(arguments: Sequence[str]) -> None:
    """Require that each file of a command line's `--config` is a mapping in YAML, so that what is wrong has a name.

    Raises:
        InputError: one is not.
    """
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        path = Path(value if equals else following)
        if option in ("--config", "-c") and path.is_file():
            _check_config(path)


def _check_config(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"config={path}: is not UTF-8 text; give a YAML file") from error
    except OSError as error:
        raise InputError(f"config={path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise InputError(f"config={path}: is not YAML: {reason}") from error
    if not isinstance(content, dict):
        kind = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise InputError(f"config={path}: {kind}; give a mapping of options, as configs/ has them")


def whole_sentences(text: str) -> str:
    """Return `text` without a last sentence that is cut: Lightning takes one line of its docstrings."""
    return text if text.endswith(".") else text[: text.rfind(". ") + 1] or text


def one_line(message: str) -> str:
    """Return what matters of one of jsonargparse's messages.

    Where a value fits none of several types, the message is a list with one reason for each; the last
    that says more than the type, and not that of the absence of a value, is the one that helps.
    """
    message = re.sub(r'Parser key "(.+?)":\s+', r"\1: ", message)
    message = re.sub(r"a (?:<class '([\w.]+)'>|typing\.(Literal))", r"\1\2", message)
    message = re.sub(r"Expected a dot import path string: (.+)", r"no class is called \1", message)
    listed = re.findall(r"^\s*- (.+(?:\n {8,}.+)*)$", message, re.MULTILINE)
    reasons = [r for r in listed if "NoneType" not in r and "Does not validate" not in r]
    if not reasons:
        return " ".join(message.split())
    key = message.split(":", 1)[0]
    told = [r for r in reasons if not r.startswith("Expected")] or reasons
    reason = " ".join(told[-1].split())
    given = re.search(r"^\s*Given value: (?!NestedArg|Namespace)(.+)$", message, re.MULTILINE)
    return f"{key}: {reason}" + (f", given: {given[1]}" if given and given[1] not in reason else "")
