"""Identity of a run: its name, its directory and its place in a trace."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.nn.parameter import UninitializedParameter

from liquid_telemetry.observe.batches import BatchSize, batch_size
from liquid_telemetry.observe.clock import Clock
from liquid_telemetry.observe.identity import agreed_identity, draw_identity, shared_identity
from liquid_telemetry.observe.names import encodable
from liquid_telemetry.observe.records import RunInfo

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

STAGE_OF_FN = {"fit": "train", "validate": "validation", "test": "test", "predict": "predict"}


@dataclass(frozen=True)
class ObserverOptions:
    """What a user may say about the observation itself.

    Args:
        model_name: Name of the model in every signal; the LightningModule's class name when None.
        dir: Folder that gets a sub-folder for each run.
        loss_key: Name of the training loss in the step's output, or else among the logged values.
        accuracy_key: Name of the accuracy among the logged values.
        gradient_norm: Measure the gradient norm, once a second.
        device_phases: Time phases on the GPU, for one batch in ten.
        stop_on_nonfinite: End the run by an error when a training loss is NaN or infinite.
        batch_size: Counts the samples of a batch.
        clock: Monotonic nanoseconds.
    """

    model_name: str | None = None
    dir: str | os.PathLike[str] = "runs"
    loss_key: str | None = None
    accuracy_key: str | None = None
    gradient_norm: bool = False
    device_phases: bool = False
    stop_on_nonfinite: bool = False
    batch_size: BatchSize = batch_size
    clock: Clock | None = None

    def merged(self, other: ObserverOptions) -> ObserverOptions:
        """These options, and from ``other`` those that are still at their default here."""
        default = ObserverOptions()
        theirs = {
            name: value
            for name, value in vars(other).items()
            if getattr(self, name) == getattr(default, name) and value != getattr(default, name)
        }
        return replace(self, **theirs)


def new_run(
    trainer: Trainer,
    module: LightningModule | None,
    options: ObserverOptions,
    fn: str,
    start_ns: int,
    together: bool = True,
) -> RunInfo:
    """A new run.

    Args:
        trainer: Whose run it is.
        module: Gives the model its name, unless the options do.
        options: Of the user.
        fn: fit, validate, test or predict.
        start_ns: Unix nanoseconds.
        together: Whether every rank comes here, so that all can take rank 0's identity. Not so on an exception
            before that: the others would wait for it.
    """
    identity = draw_identity(start_ns, os.environ)
    if trainer.world_size > 1:
        identity = shared_identity(trainer, identity) if together else agreed_identity(trainer, identity)
    run_id, trace_id, root_span_id, parent_span_id = identity
    model_type = type(module).__name__ if module is not None else "unknown"
    return RunInfo(
        run_id=run_id,
        model_name=encodable(options.model_name or model_type),
        dir=Path(options.dir).absolute() / run_id,
        stage=STAGE_OF_FN[fn],
        job=fn == "fit" and not _is_fast_dev_run(trainer),
        start_ns=start_ns,
        trace_id=trace_id,
        root_span_id=root_span_id,
        parent_span_id=parent_span_id,
        rank=trainer.global_rank,
        local_rank=trainer.local_rank,
        node_rank=trainer.node_rank,
        world_size=trainer.world_size,
        strategy=type(trainer.strategy).__name__,
        accelerator=type(trainer.accelerator).__name__,
        model_type=model_type,
        device=str(trainer.strategy.root_device),
    )


def _is_fast_dev_run(trainer: Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))


def checkpoint_folder(trainer: Trainer) -> str | None:
    """Where the trainer's first checkpoint callback writes, if it has said so yet."""
    callback = trainer.checkpoint_callback
    folder = getattr(callback, "dirpath", None)
    return str(Path(folder).absolute()) if folder else None


def finite_or_none(value: Any) -> int | None:
    """A count of Lightning's as an int; None for unlimited or unknown."""
    try:
        return int(value) if 0 <= value < float("inf") else None
    except (TypeError, ValueError):
        return None


def count_parameters(module: LightningModule) -> int:
    """Numbers in all parameters, without those that have no shape before the first batch."""
    return sum(p.numel() for p in module.parameters() if not isinstance(p, UninitializedParameter))
