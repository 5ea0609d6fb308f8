"""The checkpoint that a command goes on from, and what it says of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from liquid_train.errors import InputError
from liquid_train.tasks.load import read_checkpoint

_NAMED = ("best", "last", "hpc", "registry")
_SHARDED = ("meta.pt", ".metadata")
_MISFIT = "Error(s) in loading state_dict"


def check_checkpoint(given: str) -> None:
    """Require a whole checkpoint of Lightning's: a file, or a folder that holds a sharded one.

    Raises:
        InputError: it is none.
    """
    if given in _NAMED or "://" in given:
        return
    path = Path(given)
    if not path.exists():
        raise InputError(f"ckpt_path={path}: there is no such file")
    if path.is_file():
        read_checkpoint(path, "ckpt_path", {"state_dict", "pytorch-lightning_version"})
    elif not any((path / name).is_file() for name in _SHARDED):
        raise InputError(f"ckpt_path={path}: is a folder without a checkpoint in it; name the file")


def check_overruled(
    arguments: Sequence[str], given: Mapping[str, Any], kept: Mapping[str, Any], path: object
) -> None:
    """Require that no option of the model was given that the checkpoint, whose options count, says otherwise.

    Args:
        arguments: of the command line.
        given: options of the model as they were given, by name.
        kept: the same with those of the checkpoint in their place.
        path: of the checkpoint.

    Raises:
        InputError: there is one.
    """
    for option in _model_options(arguments):
        name = next((name for name in kept if name.removeprefix("init_args.") == option), option)
        if name in given and given[name] != kept.get(name):
            raise InputError(
                f"model.{option}={given[name]}: the checkpoint {path} was made with {kept.get(name)}, and goes on with "
                "it; leave the option out, or train a new model"
            )


def misfit(error: BaseException, path: object) -> InputError | None:
    """Return what to say of an exception that tells that the weights of a checkpoint do not fit the model."""
    if not isinstance(error, RuntimeError) or _MISFIT not in str(error):
        return None
    reason = " ".join(str(error).split())
    return InputError(f"ckpt_path={path}: does not fit this model: {reason[:300]}")


def _model_options(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        found = re.match(r"--model\.(?:init_args\.)?([\w.]+)", argument)
        if found:
            yield found[1]
