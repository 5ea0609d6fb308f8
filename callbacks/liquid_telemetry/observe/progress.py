"""Where training stands, from plain fields of the Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from liquid_telemetry.observe.records import Progress
from liquid_telemetry.observe.run import finite_or_none
from liquid_telemetry.observe.state import RunState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def measure(trainer: Trainer, state: RunState, epoch: int) -> Progress:
    """Where the run stands now.

    Args:
        trainer: Its plain fields are read, nothing that computes or waits.
        state: Of the run.
        epoch: Current one.
    """
    now = state.clock.now()
    ratio = progress_ratio(trainer) if state.fitting else None
    return Progress(
        time_ns=state.clock.unix_ns(now),
        drift_ns=state.clock.drift_ns,
        epoch=epoch,
        global_step=trainer.global_step,
        ratio=ratio,
        eta_seconds=_eta_seconds(state, now, ratio),
        learning_rates=learning_rates(trainer),
        phase_ns=state.phases.snapshot(now) if state.fitting else (),
        cuda_bytes=cuda_bytes(),
    )


def progress_ratio(trainer: Trainer) -> float | None:
    """Share of the planned training done, by whichever bound is nearer; None when there is no bound."""
    ratios = []
    if steps := finite_or_none(trainer.max_steps):
        ratios.append(trainer.global_step / steps)
    epochs, batches = finite_or_none(trainer.max_epochs), finite_or_none(trainer.num_training_batches)
    if epochs and batches:
        done = (trainer.fit_loop.batch_idx + 1) / batches
        ratios.append((trainer.current_epoch + min(done, 1.0)) / epochs)
    ratios += [
        share for timer in getattr(trainer, "callbacks", ()) if (share := _time_share(timer)) is not None
    ]
    return min(max(ratios), 1.0) if ratios else None


def _time_share(callback: Any) -> float | None:
    """Share that has gone of the time that a Timer allows, ``max_time`` say; None of any other callback."""
    if not any(kind.__module__.endswith(".callbacks.timer") for kind in type(callback).__mro__):
        return None
    left, gone = callback.time_remaining(), callback.time_elapsed()
    return gone / (left + gone) if left is not None and left + gone > 0 else None


def _eta_seconds(state: RunState, now: int, ratio: float | None) -> float | None:
    """Time to the end at the mean pace since the first measurement."""
    if ratio is None:
        return None
    if state.first_progress is None:
        state.first_progress = now, ratio
    began, first = state.first_progress
    return (now - began) / 1e9 * (1 - ratio) / (ratio - first) if ratio > first else None


def learning_rates(trainer: Trainer) -> list[float]:
    """Learning rates of all parameter groups in order; a rate that lives on a device is left out."""
    rates = (group.get("lr") for optimizer in trainer.optimizers for group in optimizer.param_groups)
    return [float(rate) for rate in rates if rate is not None and not _on_device(rate)]


def _on_device(rate: float | Tensor) -> bool:
    return isinstance(rate, Tensor) and rate.device.type != "cpu"


def cuda_bytes() -> Mapping[str, int]:
    """What the caching allocator holds on the current device, read on the host; empty before CUDA starts."""
    if not torch.cuda.is_initialized():
        return {}
    return {"cuda_allocated": torch.cuda.memory_allocated(), "cuda_reserved": torch.cuda.memory_reserved()}
