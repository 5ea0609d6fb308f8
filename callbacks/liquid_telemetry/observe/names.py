"""Which logged name is the loss, which is the accuracy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

_EDGE = r"(?:^|[/_.\-\s])"
_ACCURACY = re.compile(
    rf"(?i){_EDGE}(?:acc|accuracy|top[_@-]?\d+(?:[_-]?acc(?:uracy)?)?|(?:binary|multiclass|multilabel)accuracy)"
    r"(?=$|[/_.\-\s@\d])"
)
_LOSS = re.compile(rf"(?i){_EDGE}loss(?=$|[/_.\-\s])")
_TRAIN = re.compile(r"(?i)^train(ing)?(?=$|[/_.\-\s])")


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


def _pick(names: Iterable[str], pattern: re.Pattern[str], key: str | None) -> str | None:
    """The user's key, also with another stage's prefix; else the plainest match: epoch values first, then short."""
    known = sorted(
        names, key=lambda name: (not name.endswith("_epoch"), name.endswith("_step"), len(name), name)
    )
    if key is not None:
        stem = _TRAIN.sub("", key)
        exact = [name for name in known if name in (key, f"{key}_epoch")]
        return next(
            iter(exact or [name for name in known if name.removesuffix("_epoch").endswith(stem)]), None
        )
    return next((name for name in known if pattern.search(name)), None)


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
