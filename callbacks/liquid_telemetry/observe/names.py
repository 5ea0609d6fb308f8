"""Which logged name is the loss, which is the accuracy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

_EDGE = r"[/_.\-\s]"
_STAGE = re.compile(rf"(?i)^(?:train(?:ing)?|val(?:id(?:ation)?)?|eval|test){_EDGE}")
_ENDING = re.compile(r"(?:_epoch|_step)?(?:/dataloader_idx_\d+)?$")
_TRAIN = re.compile(rf"(?i)^train(ing)?(?=$|{_EDGE})")


def _forms(words: str) -> tuple[re.Pattern[str], ...]:
    """Of a name without stage and ending, the plainest form first: it is such a word, ends in one, has one in it."""
    return tuple(
        re.compile(f"(?i){form}")
        for form in (
            f"^(?:{words})$",
            f"(?:^|{_EDGE})(?:{words})$",
            rf"(?:^|{_EDGE})(?:{words})(?={_EDGE}|[@\d])",
        )
    )


_ACCURACY = _forms(
    r"acc|accuracy|top[_@-]?\d+(?:[_-]?acc(?:uracy)?)?|(?:binary|multiclass|multilabel)accuracy"
)
_LOSS = _forms("loss")


def encodable(name: str) -> str:
    """The name with escapes for what UTF-8 cannot hold: ``os.fsdecode`` makes such text of file names."""
    return name.encode("utf-8", "backslashreplace").decode()


def scalars(metrics: Mapping[str, Any]) -> dict[str, Tensor]:
    """The one-element tensors among logged values."""
    return {
        name: value for name, value in metrics.items() if isinstance(value, Tensor) and value.numel() == 1
    }


def pick_accuracy(names: Iterable[str], key: str | None = None) -> str | None:
    """The name of the accuracy among the names that one stage logged, or None."""
    return _pick(names, _ACCURACY, key)


def pick_loss(names: Iterable[str], key: str | None = None) -> str | None:
    """The name of the loss among the names that one stage logged, or None."""
    return _pick(names, _LOSS, key)


def _pick(names: Iterable[str], forms: Sequence[re.Pattern[str]], key: str | None) -> str | None:
    """The user's key, also with another stage's prefix; else the plainest match: epoch values first, then short."""
    tests: tuple[Callable[[str], bool], ...]
    if key is not None:
        bare, stem = _STAGE.sub("", key), _TRAIN.sub("", key)
        tests = (
            lambda name: name in (key, f"{key}_epoch"),
            lambda name: _STAGE.sub("", name.removesuffix("_epoch")) == bare,
            lambda name: name.removesuffix("_epoch").endswith(stem),
        )
    else:
        tests = tuple(partial(_has_form, form) for form in forms)
    known = sorted(
        names, key=lambda name: (not name.endswith("_epoch"), name.endswith("_step"), len(name), name)
    )
    return next((name for test in tests for name in known if test(name)), None)


def _has_form(form: re.Pattern[str], name: str) -> bool:
    return form.search(_STAGE.sub("", _ENDING.sub("", name))) is not None


def is_same(value: Tensor, seen: Tensor | None) -> bool:
    """Whether a logged value is one seen before.

    Lightning may hand out a new tensor at each look, but a new value has memory of its own.
    """
    return value is seen or (seen is not None and value.data_ptr() == seen.data_ptr() != 0)


class Freshness:
    """Tells which logged values are new: Lightning keeps old keys for ever."""

    def __init__(self) -> None:
        self._seen: dict[str, Tensor] = {}

    def take(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """The scalars that are not the ones seen last, which are then seen."""
        fresh = {n: value for n, value in scalars(metrics).items() if not is_same(value, self._seen.get(n))}
        self._seen.update(fresh)
        return fresh
