"""Time series classification and regression problems: the UCR/UEA archive and one's own `.ts` files."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liquid_train.errors import InputError


@dataclass(frozen=True)
class RawPart:
    """The training or the test part of a problem, as the file has it."""

    origin: str
    """What to call it in an error message."""
    values: list[NDArray[np.float64]]
    """One array of [T, C] for each series."""
    labels: NDArray[Any]
    """[N] class names, or values of a regression problem."""
    regression: bool


def load_problem(dataset: str) -> tuple[RawPart, RawPart]:
    """Read the training and the test part of a problem.

    Args:
        dataset: a name of the UCR/UEA archive, or a path `DIR/NAME` to one's own `DIR/NAME_TRAIN.ts` and
            `DIR/NAME_TEST.ts`. A name that aeon does not ship is downloaded by it, once, to `~/aeon_data`
            (environment `AEON_DATA`).

    Raises:
        InputError: the name is unknown, a file is missing, is no valid `.ts` file, has no series or has
            values that are missing or not finite.
    """
    train, test = (_load_part(dataset, part) for part in ("TRAIN", "TEST"))
    if train.regression != test.regression:
        raise InputError(f"{test.origin}: @targetlabel must be the same as in {train.origin}")
    if train.values[0].shape[1] != test.values[0].shape[1]:
        raise InputError(
            f"{test.origin}: has {test.values[0].shape[1]} channels where {train.origin} has "
            f"{train.values[0].shape[1]}; both must have the same"
        )
    return train, test


def _load_part(dataset: str, part: str) -> RawPart:
    own = _own_file(dataset, part)
    try:
        values, labels, meta = _read_file(own) if own else _read_archive(dataset, part)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(f'data.dataset={dataset}: needs aeon: pip install "liquid-train[data]"') from error
    except Exception as error:
        what = f"{own}: not a valid .ts file" if own else f"data.dataset={dataset}: could not be loaded"
        reason = " ".join(str(error).split()) or "no reason given"
        raise InputError(f"{what} ({type(error).__name__}: {reason})") from error
    return _check(str(own or f"{dataset} ({part.lower()} part)"), values, labels, meta)


def _own_file(dataset: str, part: str) -> Path | None:
    """Return the file if `dataset` is a path; a bare name is one when the file lies here."""
    file = Path(f"{dataset}_{part}.ts").expanduser()
    if file.is_file():
        return file
    if len(Path(dataset).parts) > 1 or dataset.startswith("."):
        raise InputError(
            f"data.dataset={dataset}: there is no file {file}; a path DIR/NAME stands for DIR/NAME_TRAIN.ts "
            "and DIR/NAME_TEST.ts"
        )
    return None


def _read_file(file: Path) -> Any:
    from aeon.datasets import load_from_ts_file

    return load_from_ts_file(str(file), return_meta_data=True)


def _read_archive(name: str, part: str) -> Any:
    from aeon.datasets import load_classification, load_regression
    from aeon.datasets.dataset_collections import get_downloaded_tsc_tsr_datasets
    from aeon.datasets.tsc_datasets import tsc_zenodo
    from aeon.datasets.tser_datasets import tsr_zenodo

    known = {*tsc_zenodo, *tsr_zenodo, *get_downloaded_tsc_tsr_datasets()}
    if name not in known:
        raise InputError(f"data.dataset={name}: {_suggest(name, known)}")
    load = load_regression if name in tsr_zenodo else load_classification
    return load(name, split=part.lower(), return_metadata=True)


def _suggest(name: str, known: set[str]) -> str:
    by_lower = {k.lower(): k for k in known}
    close = [by_lower[k] for k in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    hint = f"did you mean {' or '.join(close)}" if close else "see https://timeseriesclassification.com"
    return f"not a dataset of the UCR/UEA archive, {hint}; for your own files give a path DIR/NAME"


def _check(origin: str, values: Sequence[Any], labels: NDArray[Any], meta: dict[str, Any]) -> RawPart:
    if len(values) == 0:
        raise InputError(f"{origin}: has no series; it needs at least one")
    if len(labels) != len(values):
        raise InputError(f"{origin}: has no class label or target at the end of each line")
    if meta.get("timestamps"):
        raise InputError(
            f"{origin}: has @timestamps true; time stamps in .ts files are not read, remove them"
        )
    arrays = [np.asarray(v, dtype=np.float64).T for v in values]
    for i, array in enumerate(arrays):
        if not np.isfinite(array).all():
            step, channel = np.argwhere(~np.isfinite(array))[0]
            raise InputError(
                f"{origin}: series {i} has {array[step, channel]} at step {step} of channel {channel}; "
                "fill missing values before training"
            )
    regression = bool(meta.get("targetlabel"))
    if regression and not np.isfinite(labels).all():
        raise InputError(
            f"{origin}: the target of series {int(np.argmin(np.isfinite(labels)))} is not finite"
        )
    return RawPart(origin, arrays, labels, regression)
