"""Trained tasks from Lightning's checkpoints, for use without a Trainer."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from liquid_train.errors import InputError
from liquid_train.tasks.base import SequenceTask
from liquid_train.tasks.classifier import LiquidClassifier
from liquid_train.tasks.regressor import LiquidRegressor

TASKS: Mapping[str, type[SequenceTask]] = {
    "LiquidClassifier": LiquidClassifier,
    "LiquidRegressor": LiquidRegressor,
}


TELEMETRY = "liquid_telemetry"
"""Key of a checkpoint under which the telemetry names the run."""


@dataclass(frozen=True)
class Trained:
    """A task with its trained weights, ready for inference, and where it comes from."""

    task: SequenceTask
    path: Path
    sha256: str
    run_id: str | None
    """The run that wrote the checkpoint, None where it had no telemetry."""
    epoch: int
    global_step: int
    scores: Mapping[str, float]
    """What the checkpoint says of how good it is: the monitored value, by its name."""

    @property
    def name(self) -> str:
        """Class of the task."""
        return type(self.task).__name__

    @property
    def version(self) -> str:
        """A name for these weights: the run and the checkpoint's, or the file's hash where no run is known."""
        return f"{self.run_id}-{self.path.stem}" if self.run_id else self.sha256[:12]


def load_task(path: Path, option: str) -> Trained:
    """Load a checkpoint onto the CPU in evaluation mode; nothing in it is executed.

    Args:
        path: The file.
        option: What the user gave it as, for the message.

    Raises:
        InputError: The file is missing or damaged, or holds no task of `TASKS`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise InputError(f"{option}={path}: {reason}; give a checkpoint of liquid-train fit") from error
    checkpoint = read_checkpoint(path, option, {"state_dict", "hyper_parameters"})
    task = _build(checkpoint, f"{option}={path}")
    known = checkpoint.get(TELEMETRY)
    return Trained(
        task=task.eval().requires_grad_(False),
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        run_id=str(known["run_id"]) if isinstance(known, dict) and "run_id" in known else None,
        epoch=int(checkpoint.get("epoch", 0)),
        global_step=int(checkpoint.get("global_step", 0)),
        scores=_scores(checkpoint.get("callbacks")),
    )


def read_checkpoint(path: Path, option: str, needed: Collection[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is executed.

    Args:
        path: The file.
        option: What the user gave it as, for the message.
        needed: Keys that it must have.

    Raises:
        InputError: It is damaged, holds more than tensors and plain values, or lacks a key.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        foreign = "weights_only" in str(error) and "GLOBAL" in str(error)
        rule = "holds objects besides tensors and plain values" if foreign else "is not a whole checkpoint"
        raise InputError(
            f"{option}={path}: {rule}; give one that liquid-train fit wrote to its end"
        ) from error
    if not isinstance(checkpoint, dict) or not set(needed) <= checkpoint.keys():
        raise InputError(
            f"{option}={path}: is no checkpoint of Lightning's with {' and '.join(sorted(needed))}; "
            "give one that liquid-train fit wrote"
        )
    return checkpoint


def _build(checkpoint: Mapping[str, Any], given: str) -> SequenceTask:
    hyper = dict(checkpoint["hyper_parameters"])
    path = str(hyper.pop("_class_path", ""))
    kind = path.rpartition(".")[2] or ("LiquidClassifier" if "num_classes" in hyper else "LiquidRegressor")
    hyper.pop("_instantiator", None)
    if kind not in TASKS or (path and not path.startswith("liquid_train.")):
        raise InputError(f"{given}: holds a {path}; must be one of {', '.join(TASKS)}")
    try:
        task = TASKS[kind](**hyper)
        task.configure_model()
        task.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{given}: does not fit a {kind} of this version ({reason}); train it anew"
        ) from error
    return task


def _scores(callbacks: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        monitor, score = (
            (state.get("monitor"), state.get("current_score")) if isinstance(state, dict) else (None, None)
        )
        if isinstance(monitor, str) and isinstance(score, torch.Tensor) and score.numel() == 1:
            found[monitor] = float(score)
    return found
