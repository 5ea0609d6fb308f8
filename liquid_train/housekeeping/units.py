"""Sizes and ages, as people write them."""

from __future__ import annotations

import argparse
import math
import re

_SIZES = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_BY_LETTERS = {name.lower(): number for name, number in _SIZES.items()}
_AGES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def read_size(text: str) -> int:
    """Read a size such as `20GB`.

    Raises:
        ArgumentTypeError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    unit = _BY_LETTERS.get(found[2].lower()) if found is not None else None
    if found is None or unit is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be a size such as 500MB, 20GB, 1.5TB or 20GiB")
    return math.ceil(float(found[1]) * unit)


def read_age(text: str) -> float:
    """Read an age such as `30d`, in seconds.

    Raises:
        ArgumentTypeError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be an age such as 30m, 12h, 30d or 8w")
    return float(found[1]) * _AGES[found[2]]


def size(count: float) -> str:
    """Bytes in three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def age(seconds: float) -> str:
    """Seconds in the largest unit of which there are two."""
    for letter in ("w", "d", "h", "m"):
        if letter != "w" and seconds >= 2 * _AGES[letter]:
            return f"{seconds / _AGES[letter]:.3g} {_WORDS[letter]}"
    return f"{max(seconds, 0):.3g} s"


_WORDS = {"d": "days", "h": "hours", "m": "minutes"}
