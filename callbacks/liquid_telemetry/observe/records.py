"""What happened, as frozen records with units: measured once, read by every backend.

Times are Unix nanoseconds (``*_ns``) or seconds (``*_seconds``). Epochs and batches count from zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from liquid_telemetry.signals import PHASES

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class RunInfo:
    """Constants of a run."""

    run_id: str
    model_name: str
    dir: Path
    stage: str
    """train for fit, else validation, test or predict."""
    job: bool
    """Whether it counts as a job: fit does; fast_dev_run, validate, test and predict alone do not."""
    start_ns: int
    trace_id: str
    """32 hex digits, from TRACEPARENT where the environment has one."""
    root_span_id: str
    """16 hex digits, reserved for the root span and the same on every rank."""
    parent_span_id: str | None = None
    """The span of TRACEPARENT."""
    rank: int = 0
    local_rank: int = 0
    node_rank: int = 0
    world_size: int = 1
    strategy: str = ""
    accelerator: str = ""
    model_type: str = "unknown"
    """Class of the module."""
    device: str = "cpu"
    """cpu, cuda:0, ..."""


@dataclass(frozen=True)
class RunStarted:
    """The model, the data and the machine are ready; a checkpoint has been restored."""

    time_ns: int
    resumed_from: str | None = None
    parameters: int | None = None
    max_epochs: int | None = None
    batches_per_epoch: int | None = None


@dataclass(frozen=True)
class EpochStarted:
    """A pass over the data of a stage begins."""

    stage: str
    epoch: int
    start_ns: int
    expected_batches: int | None = None


@dataclass(frozen=True)
class BatchBlock:
    """Batches of one epoch as columns of equal length, in order."""

    stage: str
    epoch: int
    index: Integers
    start_ns: Integers
    end_ns: Integers
    samples: Integers
    global_step: Integers
    loss: Sequence[float | None]
    """Unscaled by accumulation; None for skipped batches and for stages other than train."""
    skipped: Sequence[bool]
    phase_ns: Integers
    """Time of each phase since the batch before, in the order of ``PHASES``; empty for stages other than train."""
    unfinished: bool = False
    """Whether the run ended within the last of them."""

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        """How long each batch took."""
        return (self.end_ns - self.start_ns) / 1e9

    @cached_property
    def known_losses(self) -> tuple[NDArray[np.float64], Integers]:
        """The losses that are known, and which batches they are of."""
        if None not in self.loss:
            return np.array(self.loss, np.float64), np.arange(len(self))
        where = [at for at, loss in enumerate(self.loss) if loss is not None]
        return np.array([self.loss[at] for at in where], np.float64), np.array(where, np.int64)

    @cached_property
    def nonfinite(self) -> Sequence[int]:
        """Which batches have a loss of NaN or infinity."""
        losses, where = self.known_losses
        finite = np.isfinite(losses)
        return [] if finite.all() else where[~finite].tolist()


@dataclass(frozen=True)
class Progress:
    """Where the run stands; sent with each drain."""

    time_ns: int
    drift_ns: int
    """How far the wall clock has gone ahead of the run's, by which all times of records are told."""
    epoch: int
    global_step: int
    ratio: float | None = None
    eta_seconds: float | None = None
    learning_rates: Sequence[float] = ()
    phase_ns: Sequence[int] = ()
    """Nanoseconds of each phase since the run began, in the order of ``PHASES``; empty unless fit."""
    cuda_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GradientNorm:
    """L2 norm of all gradients before an optimizer step."""

    value: float


@dataclass(frozen=True)
class DevicePhases:
    """What the device spent on phases of batches that were timed since the last drain."""

    seconds: Mapping[str, Sequence[float]]
    """By phase, one number for each time it was entered."""


@dataclass(frozen=True)
class EpochEnded:
    """A pass over the data of a stage ended, with its aggregates over all batches."""

    stage: str
    epoch: int
    start_ns: int
    end_ns: int
    batches: int
    samples: int
    global_step: int
    loss: float | None = None
    """Mean over the epoch weighted by samples (train), or the loss that the stage logged."""
    accuracy: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Everything that the stage logged with self.log."""
    skipped: int = 0
    learning_rate: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    phase_ns: Sequence[int] = ()
    complete: bool = True
    """False when the run ended within the epoch."""

    @property
    def duration_seconds(self) -> float:
        """Wall time."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True)
class StepsLogged:
    """What training steps have logged with self.log since the last drain: of each name the last value."""

    metrics: Mapping[str, float]
    accuracy: float | None = None


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint was written; the time is what blocked training."""

    path: str | None
    epoch: int
    global_step: int
    start_ns: int
    end_ns: int

    @property
    def duration_seconds(self) -> float:
        """Time that the write blocked training."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True)
class RunEnded:
    """The run is over, or the part of it that one Trainer call made."""

    time_ns: int
    outcome: str
    """completed, failed or interrupted."""
    stage: str
    """Of the Trainer function that ended."""
    reason: str | None = None
    error: BaseException | None = None
    epoch: int | None = None
    batch: int | None = None
    epochs: int = 0
    batches: int = 0
    global_step: int = 0
    loss: float | None = None
    phase_ns: Sequence[int] = ()


Record = (
    RunStarted
    | EpochStarted
    | BatchBlock
    | Progress
    | GradientNorm
    | DevicePhases
    | EpochEnded
    | StepsLogged
    | CheckpointSaved
    | RunEnded
)


def phase_seconds(phase_ns: Sequence[int]) -> dict[str, float]:
    """Phases by name, in seconds."""
    return {name: nanoseconds / 1e9 for name, nanoseconds in zip(PHASES, phase_ns, strict=False)}
