"""Records to metrics."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from liquid_telemetry import __version__
from liquid_telemetry.errors import text_of
from liquid_telemetry.metrics.jobs import EmbeddedJob
from liquid_telemetry.metrics.publish import Publisher
from liquid_telemetry.metrics.store import Store
from liquid_telemetry.observe.backend import Correlation
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.names import encodable
from liquid_telemetry.observe.records import (
    BatchBlock,
    CheckpointSaved,
    DevicePhases,
    EpochEnded,
    EpochStarted,
    GradientNorm,
    Progress,
    Record,
    RunEnded,
    RunInfo,
    RunStarted,
    StepsLogged,
    phase_seconds,
)
from liquid_telemetry.signals import PHASES
from liquid_telemetry.spool import Sink, find_sinks

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SinkOptions = tuple[str | None, str | None, bool | str]

_MAX_NAMES = 100
_MAX_GROUPS = 16
_WORK = ("data", "transfer", "forward", "optimizer")
_DATASETS = {"train": "train", "validation": "val", "test": "test"}


class PrometheusBackend:
    """Keeps a run's metrics and hands them to the exporter process or to the user's registry.

    Args:
        host: Address for the exporter to listen on.
        port: Its port.
        registry: Show the metrics there instead; nothing is served then.
        sinks: Pushgateway, textfile directory and OTLP receiver, as ``find_sinks`` takes them.
    """

    signal = "metrics"

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry | None = None,
        sinks: SinkOptions = (None, None, False),
    ) -> None:
        self._host, self._port, self._registry, self._sinks = host, port, registry, sinks
        self._run: RunInfo | None = None
        self._publisher: Publisher | None = None
        self._job: EmbeddedJob | None = None
        self._reset("")

    def _reset(self, model_name: str) -> None:
        self._store = Store(model_name)
        self._epoch: int | None = None
        self._names: set[tuple[str, str]] = set()
        self._times: dict[str, int] = {}
        self._drift_ns = 0

    def start(self, run: RunInfo, correlation: Correlation, faults: Faults) -> None:
        """Open a store for the run, or go on with the one it has."""
        self._correlation, self._faults = correlation, faults
        if run is not self._run:
            self._run = run
            self._reset(run.model_name)
            self._publisher = self._job = None
            if self._registry is not None:
                from liquid_telemetry.metrics.embed import embed

                self._job = embed(self._store, self._registry, is_job=run.job)
            else:
                self._publisher = Publisher(run, self._host, self._port, self._wanted_sinks())
            self._zero(run)
        if self._job is not None:
            self._job.open()
        if self._publisher is not None:
            self._publisher.open(correlation.outputs, correlation.heart)
            self._publish(force=True)

    def _wanted_sinks(self) -> list[Sink]:
        try:
            return find_sinks(*self._sinks, os.environ)
        except ValueError as error:  # the environment's; the options have been checked
            self._faults.report("metrics", error)
            return []

    def _zero(self, run: RunInfo) -> None:
        """Counters exist before their first increase, or Prometheus cannot see it."""
        store = self._store
        for stage in ("train", "validation") if run.stage == "train" else (run.stage,):
            self._zero_stage(stage)
        store.set("training_info", 1, *self._info(run))
        for signal in ("metrics", "tracing", "logging"):
            store.add("telemetry_errors_total", 0, signal, "")
            store.add("telemetry_dropped_total", 0, signal, "")
        store.histogram("inference_duration_seconds")
        store.add("inference_requests_total", 0, run.model_type, run.device)
        if run.stage == "train":
            store.add("training_nonfinite_losses_total", 0)
            store.add("training_checkpoints_total", 0)
            store.histogram("training_checkpoint_duration_seconds")
            for phase in PHASES:
                store.add("training_phase_seconds_total", 0, phase)

    def _zero_stage(self, stage: str) -> None:
        self._store.add("training_batches_total", 0, stage)
        self._store.add("training_samples_total", 0, stage)
        self._store.histogram("training_epoch_duration_seconds", stage)
        self._store.histogram("training_batch_duration_seconds", stage)

    @staticmethod
    def _info(run: RunInfo) -> tuple[str, ...]:
        versions = (__version__, _version("lightning", "pytorch_lightning"), _version("torch"))
        return (run.run_id, *versions, run.strategy, run.accelerator, str(run.world_size))

    def handle(self, record: Record) -> None:
        """Update the metrics that the record concerns."""
        match record:
            case BatchBlock():
                self._block(record)
            case Progress():
                self._progress(record)
            case EpochStarted():
                self._epoch_started(record)
            case EpochEnded():
                self._epoch_ended(record)
            case StepsLogged():
                self._steps_logged(record)
            case CheckpointSaved():
                self._checkpoint(record)
            case GradientNorm():
                self._store.set("training_gradient_norm", record.value)
            case DevicePhases():
                for phase, seconds in record.seconds.items():
                    histogram = self._store.histogram("training_device_phase_duration_seconds", phase)
                    histogram.observe_all(np.array(seconds))
            case RunStarted():
                self._started()
            case RunEnded():
                self._ended(record)

    def _started(self) -> None:
        if self._job is not None:
            self._job.start()
        if self._publisher is not None:
            self._publisher.tell(status="running")
            self._publish(force=True)

    def _epoch_started(self, record: EpochStarted) -> None:
        if record.stage == "train":
            self._store.set("training_epoch", record.epoch)
            self._set_time("training_epoch_start_timestamp_seconds", record.start_ns)
        else:
            self._zero_stage(record.stage)
            if self._publisher is not None:
                self._publisher.continue_with(record.stage)
        self._publish(milestone=f"{record.stage} started", epoch=record.epoch)

    def _set_time(self, name: str, run_ns: int) -> None:
        """Set a point in time by the wall clock as it is now: whoever asks how long ago that was reads that clock."""
        self._times[name] = run_ns
        self._store.set(name, (run_ns + self._drift_ns) / 1e9)

    def _block(self, block: BatchBlock) -> None:
        store, stage = self._store, block.stage
        store.add("training_batches_total", len(block), stage)
        store.add("training_samples_total", int(block.samples.sum()), stage)
        histogram = store.histogram("training_batch_duration_seconds", stage)
        histogram.observe_all(block.seconds)
        if (exemplar := self._correlation.exemplar) is not None:
            histogram.attach(exemplar.seconds, exemplar.span._asdict())
            self._correlation.exemplar = None
        self._set_time("training_last_progress_timestamp_seconds", int(block.end_ns[-1]))
        if stage != "train":
            self._inference(block)
        elif self._run is not None and self._run.world_size > 1:
            self._rank(block, str(self._run.rank))
        self._losses(block)

    def _rank(self, block: BatchBlock, rank: str) -> None:
        """What this rank's batches took, and what of it was not spent waiting for other ranks."""
        phases = dict(zip(PHASES, (block.phase_ns.mean(axis=0) / 1e9).tolist(), strict=False))
        work = sum(phases.get(phase, 0.0) for phase in _WORK)
        self._store.set("training_rank_batch_seconds", block.seconds.mean(), rank, "")
        self._store.set("training_rank_data_wait_seconds", phases.get("data", 0.0), rank, "")
        self._store.set("training_rank_work_seconds", work, rank, "")

    def _inference(self, block: BatchBlock) -> None:
        self._store.histogram("inference_duration_seconds").observe_all(block.seconds)
        if self._run is not None:
            requests = ("inference_requests_total", len(block), self._run.model_type, self._run.device)
            self._store.add(*requests)

    def _losses(self, block: BatchBlock) -> None:
        losses, _ = block.known_losses
        if len(losses):
            if block.epoch != self._epoch:
                self._epoch = block.epoch
                self._store.clear("training_loss")
            self._store.set("training_loss", losses[-1], str(block.epoch))
            self._store.add("training_nonfinite_losses_total", len(block.nonfinite))

    def _progress(self, record: Progress) -> None:
        store = self._store
        store.set("training_global_step", record.global_step)
        for name, value in (
            ("training_progress_ratio", record.ratio),
            ("training_eta_seconds", record.eta_seconds),
        ):
            if value is not None:
                store.set(name, value)
        self._learning_rates(record.learning_rates)
        for component, size in record.cuda_bytes.items():
            store.set("memory_usage_bytes", size, component)
        self._drift_ns = record.drift_ns
        for name, run_ns in list(self._times.items()):
            self._set_time(name, run_ns)
        self._phases(record.phase_ns)
        self._publish(epoch=record.epoch)

    def _learning_rates(self, rates: Sequence[float]) -> None:
        for group, rate in enumerate(rates[:_MAX_GROUPS]):
            self._store.set("training_learning_rate", rate, str(group))
        if len(rates) > _MAX_GROUPS and ("metrics", "learning_rate_groups") not in self._faults.dropped:
            self._faults.drop("metrics", "learning_rate_groups", len(rates) - _MAX_GROUPS)

    def _phases(self, phase_ns: Any) -> None:
        for phase, seconds in phase_seconds(phase_ns).items():
            self._store.set("training_phase_seconds_total", seconds, phase)

    def _epoch_ended(self, record: EpochEnded) -> None:
        store, stage = self._store, record.stage
        if record.complete:
            store.histogram("training_epoch_duration_seconds", stage).observe(record.duration_seconds)
        self._set_time("training_last_progress_timestamp_seconds", record.end_ns)
        if record.accuracy is not None and stage in _DATASETS:
            store.set("model_accuracy", record.accuracy, _DATASETS[stage])
        if stage == "validation" and record.loss is not None:
            store.set("validation_loss", record.loss)
        for name, value in record.metrics.items():
            self._logged(name, stage, value)
        self._publish(milestone=f"{stage} ended", epoch=record.epoch)

    def _steps_logged(self, record: StepsLogged) -> None:
        if record.accuracy is not None:
            self._store.set("model_accuracy", record.accuracy, _DATASETS["train"])
        for name, value in record.metrics.items():
            self._logged(name, "train", value)

    def _logged(self, name: str, stage: str, value: float) -> None:
        name = encodable(name)
        if (name, stage) not in self._names and len(self._names) >= _MAX_NAMES:
            self._faults.drop("metrics", "metric_names")
            return
        self._names.add((name, stage))
        self._store.set("training_logged_metric", value, name, stage)

    def _checkpoint(self, record: CheckpointSaved) -> None:
        self._store.add("training_checkpoints_total", 1)
        self._store.histogram("training_checkpoint_duration_seconds").observe(record.duration_seconds)
        self._set_time("training_last_checkpoint_timestamp_seconds", record.end_ns)
        self._publish(milestone="checkpoint")

    def _ended(self, record: RunEnded) -> None:
        self._phases(record.phase_ns)
        if self._store.knows("training_eta_seconds"):
            self._store.set("training_eta_seconds", 0)  # nothing is to come, whatever was expected
        self._publish(force=True)
        if self._run is None or record.stage != self._run.stage:
            return
        if self._job is not None:
            self._job.end(record.outcome, record.reason)
        if self._publisher is not None:
            self._publisher.tell(
                status=record.outcome,
                reason=record.reason,
                error_type=type(record.error).__name__ if record.error is not None else None,
                error_message=text_of(record.error, 1000) if record.error is not None else None,
                ended=record.time_ns / 1e9,
                epoch=record.epoch,
                batch=record.batch,
            )

    def _publish(self, *, force: bool = False, milestone: str = "", **position: Any) -> None:
        for kind, counts in (("errors", self._faults.errors), ("dropped", self._faults.dropped)):
            for (signal, reason), count in list(counts.items()):
                self._store.set(f"telemetry_{kind}_total", count, signal, reason)
        if self._publisher is not None:
            with self._faults.guard("metrics"):  # the outcome is told although a disk is full
                self._publisher.publish(self._store, force=force, milestone=milestone, **position)

    def outputs(self) -> dict[str, str | None]:
        """Where the metrics are served."""
        return self._publisher.outputs() if self._publisher is not None else {}

    def close(self) -> None:
        """Hand over the last values and give up the seat."""
        self._publish(force=True)
        if self._job is not None:
            self._job.close()
        if self._publisher is not None:
            self._publisher.close()


def _version(*modules: str) -> str:
    """Of the first that is loaded: an installed package's metadata takes a millisecond to read."""
    loaded = (sys.modules.get(name) for name in modules)
    return next((str(module.__version__) for module in loaded if module is not None), "")
