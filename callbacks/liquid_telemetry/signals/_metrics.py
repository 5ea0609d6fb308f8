"""Metrics, in Prometheus base units; names without the common prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "liquid_nn_"

STAGES = ("train", "validation", "test", "predict")
PHASES = ("data", "transfer", "forward", "backward", "optimizer", "validation", "checkpoint", "other")
JOB_STATES = ("starting", "running", "stalled", "completed", "failed", "interrupted")
FAILURE_REASONS = (
    "exception",
    "out_of_memory",
    "killed",
    "crashed",
    "exited",
    "stalled",
    "nonfinite",
    "unknown",
)
RANK_STATS = ("min", "median", "max")
RANK_METRICS = (
    "training_rank_batch_seconds",
    "training_rank_data_wait_seconds",
    "training_rank_work_seconds",
)
"""What every rank publishes of itself; the rest is rank 0's."""

INTERRUPTION_REASONS = ("user", "terminated")

BATCH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
EPOCH_BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
CHECKPOINT_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0)
INFERENCE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
BENCHMARK_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1)
DEPLOYMENT_STATUSES = ("started", "completed", "failed")


@dataclass(frozen=True)
class Metric:
    """One metric family.

    Args:
        name: Without ``liquid_nn_``; counters end in ``_total``.
        type: Prometheus type.
        help: One line.
        labels: Besides ``model_name`` (and ``slot``, which the exporter adds).
        unit: Base unit in words, empty for pure numbers.
        buckets: Upper bounds of a histogram, without +Inf.
        model_labelled: Whether every sample carries ``model_name``.
        source: ``run`` when the training process measures it, ``exporter`` when the exporter process does, ``command``
            when a subcommand of ``liquid-train`` or a program that infers does.
    """

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    model_labelled: bool = True
    source: Literal["run", "exporter", "command"] = "run"

    @property
    def full_name(self) -> str:
        """The name that Prometheus sees."""
        return PREFIX + self.name


_ALL = (
    Metric("training_loss", "gauge", "Latest training loss, unscaled by accumulation.", ("epoch",)),
    Metric("model_accuracy", "gauge", "Latest accuracy, between 0 and 1.", ("dataset",), "ratio"),
    Metric("validation_loss", "gauge", "Latest validation loss."),
    Metric("training_logged_metric", "gauge", "Any value the module logs with self.log.", ("name", "stage")),
    Metric(
        "training_epoch_duration_seconds",
        "histogram",
        "Wall time of an epoch, its validation included, the checkpoint after it not.",
        ("stage",),
        "seconds",
        EPOCH_BUCKETS,
    ),
    Metric(
        "training_batch_duration_seconds",
        "histogram",
        "Wall time of a batch, from its start hook to its end hook.",
        ("stage",),
        "seconds",
        BATCH_BUCKETS,
    ),
    Metric(
        "training_phase_seconds_total",
        "counter",
        "Where the time of fit goes; the phases add up to the wall time.",
        ("phase",),
        "seconds",
    ),
    Metric(
        "training_device_phase_duration_seconds",
        "histogram",
        "Time the GPU works on a phase, of one batch in ten; only when asked for.",
        ("phase",),
        "seconds",
        BATCH_BUCKETS,
    ),
    Metric(
        "training_rank_batch_seconds",
        "gauge",
        "Mean wall time of a rank's last batches, without the wait for data; with several ranks only.",
        ("rank", "stat"),
        "seconds",
        source="exporter",
    ),
    Metric(
        "training_rank_data_wait_seconds",
        "gauge",
        "Mean time that a rank waited for each of its last batches; with several ranks only.",
        ("rank", "stat"),
        "seconds",
        source="exporter",
    ),
    Metric(
        "training_rank_work_seconds",
        "gauge",
        "Mean time of a rank's last batches in data, transfer, forward and optimizer; the ranks wait for one another"
        " in backward.",
        ("rank", "stat"),
        "seconds",
        source="exporter",
    ),
    Metric("training_batches_total", "counter", "Batches processed.", ("stage",)),
    Metric("training_samples_total", "counter", "Samples processed.", ("stage",)),
    Metric("training_epoch", "gauge", "Current epoch, from zero."),
    Metric("training_global_step", "gauge", "Optimizer steps taken."),
    Metric("training_progress_ratio", "gauge", "Share of the planned training done.", (), "ratio"),
    Metric("training_eta_seconds", "gauge", "Estimated time to the planned end.", (), "seconds"),
    Metric("training_learning_rate", "gauge", "Learning rate of a parameter group.", ("group",)),
    Metric("training_gradient_norm", "gauge", "Global L2 norm of the gradients; only when asked for."),
    Metric("training_nonfinite_losses_total", "counter", "Batches whose loss was NaN or infinite."),
    Metric("training_checkpoints_total", "counter", "Checkpoints written."),
    Metric(
        "training_checkpoint_duration_seconds",
        "histogram",
        "Time that writing a checkpoint blocked training.",
        (),
        "seconds",
        CHECKPOINT_BUCKETS,
    ),
    Metric(
        "training_last_checkpoint_timestamp_seconds",
        "gauge",
        "When the last checkpoint was written.",
        (),
        "unix seconds",
    ),
    Metric(
        "training_last_progress_timestamp_seconds",
        "gauge",
        "When the last batch or stage ended.",
        (),
        "unix seconds",
    ),
    Metric(
        "training_epoch_start_timestamp_seconds", "gauge", "When the current epoch began.", (), "unix seconds"
    ),
    Metric(
        "training_info",
        "gauge",
        "Constants of the run, as labels of a 1.",
        ("run_id", "version", "lightning_version", "torch_version", "strategy", "accelerator", "world_size"),
    ),
    Metric("training_jobs_started_total", "counter", "Runs of fit that began.", source="exporter"),
    Metric("training_jobs_completed_total", "counter", "Runs of fit that ended well.", source="exporter"),
    Metric(
        "training_jobs_failed_total", "counter", "Runs of fit that failed.", ("reason",), source="exporter"
    ),
    Metric(
        "training_jobs_interrupted_total",
        "counter",
        "Runs of fit ended by Ctrl-C (user) or SIGTERM (terminated).",
        ("reason",),
        source="exporter",
    ),
    Metric(
        "training_active", "gauge", "1 while a run of fit lives, 0 once after its end.", source="exporter"
    ),
    Metric(
        "training_job_state",
        "gauge",
        "State of a run of fit; exactly one is 1.",
        ("state",),
        source="exporter",
    ),
    Metric(
        "memory_usage_bytes",
        "gauge",
        "Memory by component: process, workers, system, cuda_allocated, cuda_reserved.",
        ("component",),
        "bytes",
        model_labelled=False,
    ),
    Metric(
        "cpu_utilization_percent",
        "gauge",
        "Use of each core of the host.",
        ("core",),
        "percent",
        model_labelled=False,
        source="exporter",
    ),
    Metric(
        "gpu_utilization_percent",
        "gauge",
        "Share of time in which a GPU worked; with the extra gpu.",
        ("device",),
        "percent",
        model_labelled=False,
        source="exporter",
    ),
    Metric(
        "gpu_temperature_celsius",
        "gauge",
        "Temperature of a GPU; with the extra gpu.",
        ("device",),
        "celsius",
        model_labelled=False,
        source="exporter",
    ),
    Metric(
        "gpu_power_watts",
        "gauge",
        "Power that a GPU draws; with the extra gpu.",
        ("device",),
        "watts",
        model_labelled=False,
        source="exporter",
    ),
    Metric(
        "telemetry_errors_total",
        "counter",
        "Faults of the telemetry itself; training went on.",
        ("signal", "reason"),
        model_labelled=False,
    ),
    Metric(
        "telemetry_dropped_total",
        "counter",
        "Signals that were not recorded, because of a bound or a fault.",
        ("signal", "reason"),
        model_labelled=False,
    ),
    Metric(
        "inference_duration_seconds",
        "histogram",
        "Wall time of an inference: a batch of validation, test or predict, or a request.",
        (),
        "seconds",
        INFERENCE_BUCKETS,
        model_labelled=False,
    ),
    Metric(
        "inference_requests_total",
        "counter",
        "Batches of validation, test and predict, and requests, by class of the module and device.",
        ("model_type", "device"),
        model_labelled=False,
    ),
    Metric(
        "benchmark_duration_seconds",
        "histogram",
        "Wall time of one inference in liquid-train bench.",
        (),
        "seconds",
        BENCHMARK_BUCKETS,
        model_labelled=False,
        source="command",
    ),
    Metric(
        "performance_regression",
        "gauge",
        "1 where the last benchmark of the model was slower than its baseline allows, else 0.",
        source="command",
    ),
    Metric(
        "model_deployments_total",
        "counter",
        "Deployments that began (started), went well (completed) or did not (failed).",
        ("target_platform", "status"),
        model_labelled=False,
        source="command",
    ),
    Metric(
        "api_calls_total",
        "counter",
        "Requests to the HTTP endpoints of the exporter and of liquid-train serve.",
        ("endpoint", "method", "status"),
        model_labelled=False,
        source="command",
    ),
    Metric(
        "active_models",
        "gauge",
        "Models that liquid-train serve serves now.",
        ("environment",),
        model_labelled=False,
        source="command",
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
