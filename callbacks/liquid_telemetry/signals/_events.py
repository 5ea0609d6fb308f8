"""Log events, one JSON object a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LOG_TAIL = 10
"""How many lines of the log ``training_failed`` repeats."""
COMMON_FIELDS = ("timestamp", "level", "event", "logger", "run_id", "model_name", "trace_id", "span_id")


@dataclass(frozen=True)
class Event:
    """One kind of event: its name, its usual level, what it says and its fields besides the common ones."""

    name: str
    level: Literal["info", "warning", "error"]
    help: str
    fields: tuple[str, ...] = ()
    command: bool = False
    """Whether a command that trains nothing writes it."""


_ALL = (
    Event(
        "training_started",
        "info",
        "The run begins: model, data and machine are ready.",
        (
            "stage",
            "resumed_from",
            "parameters",
            "max_epochs",
            "batches_per_epoch",
            "strategy",
            "world_size",
            "rank",
        ),
    ),
    Event(
        "training_epoch_completed",
        "info",
        "An epoch ended; loss is its sample-weighted mean.",
        (
            "epoch",
            "loss",
            "accuracy",
            "val_loss",
            "val_accuracy",
            "learning_rate",
            "duration_seconds",
            "batches",
            "samples",
            "skipped_batches",
            "global_step",
            "samples_per_second",
            "phases",
            "metrics",
        ),
    ),
    Event(
        "validation_completed",
        "info",
        "A pass over validation, test or prediction data ended.",
        (
            "stage",
            "epoch",
            "loss",
            "accuracy",
            "duration_seconds",
            "batches",
            "samples",
            "global_step",
            "metrics",
        ),
    ),
    Event(
        "checkpoint_saved",
        "info",
        "A checkpoint was written.",
        ("path", "epoch", "global_step", "duration_seconds"),
    ),
    Event(
        "training_nonfinite_loss",
        "warning",
        "A batch's loss was NaN or infinite; at most one line a second, with the count since the last.",
        ("epoch", "batch", "global_step", "value", "count"),
    ),
    Event(
        "training_stalled",
        "error",
        "No progress for much longer than this phase of the run ever took; written by the exporter. phase: start-up, "
        "first batch, batch, epoch, validation, test, predict, checkpoint or end. stacks: those of the trainer's "
        "threads, or null with the reason in stacks_missing.",
        (
            "stage",
            "phase",
            "seconds_without_progress",
            "expected_seconds",
            "epoch",
            "batch",
            "rank",
            "pid",
            "process_state",
            "stacks",
            "stacks_missing",
        ),
    ),
    Event(
        "training_recovered",
        "info",
        "A stalled run goes on; written by the exporter.",
        ("stage", "phase", "seconds_without_progress", "epoch", "batch", "rank", "pid"),
    ),
    Event(
        "training_completed",
        "info",
        "The run ended well.",
        ("duration_seconds", "epochs", "global_step", "batches", "phases"),
    ),
    Event(
        "training_interrupted",
        "warning",
        "Ctrl-C (user) or SIGTERM (terminated) ended the run; by the exporter when the trainer could not tell. phase: "
        "as in training_failed.",
        (
            "stage",
            "reason",
            "known_by",
            "exit_code",
            "signal",
            "signal_name",
            "duration_seconds",
            "rank",
            "pid",
            "phase",
            "epoch",
            "batch",
            "global_step",
            "loss",
        ),
    ),
    Event(
        "training_failed",
        "error",
        "The run failed; written by the exporter when the trainer could not. phase: with a traceback where that came "
        "from (data, transfer, forward, backward, optimizer, checkpoint, validation or other), by the exporter the "
        "phase of the last pulse, as in training_stalled.",
        (
            "stage",
            "reason",
            "known_by",
            "error_type",
            "error_message",
            "traceback",
            "exit_code",
            "signal",
            "signal_name",
            "duration_seconds",
            "rank",
            "pid",
            "phase",
            "epoch",
            "batch",
            "global_step",
            "loss",
            "memory_process_bytes",
            "memory_workers_bytes",
            "log_tail",
        ),
    ),
    Event(
        "model_deployment_started",
        "info",
        "A model is about to be served or exported.",
        ("model_version", "target_platform", "deployment_id"),
        command=True,
    ),
    Event(
        "model_deployment_completed",
        "info",
        "It is served or exported; path: the folder of an export.",
        ("model_version", "target_platform", "deployment_id", "duration_seconds", "path"),
        command=True,
    ),
    Event(
        "model_deployment_failed",
        "error",
        "It could not be served or exported.",
        (
            "model_version",
            "target_platform",
            "deployment_id",
            "duration_seconds",
            "error_type",
            "error_message",
        ),
        command=True,
    ),
    Event(
        "serving_ended",
        "info",
        "A server of a model has answered what it had accepted, and ends.",
        ("model_version", "deployment_id", "duration_seconds", "reason"),
        command=True,
    ),
    Event(
        "performance_regression_detected",
        "warning",
        "liquid-train bench found inference slower than the baseline allows. duration: median seconds now of the "
        "slowest case; threshold: those allowed; ratio: of the medians, its interval from low to high.",
        ("duration", "threshold", "case", "ratio", "low", "high", "allowed", "baseline"),
        command=True,
    ),
)

EVENTS: dict[str, Event] = {event.name: event for event in _ALL}
