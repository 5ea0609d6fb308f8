"""The courses of runs: points from their metrics and the host's, kept over time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from liquid_telemetry.exporter.host import Host, HostSample
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.snapshots import Snapshot
from liquid_telemetry.live.history import FILE, History
from liquid_telemetry.live.points import PHASE
from liquid_telemetry.signals import PHASES, PREFIX

_PLAIN = {
    "training_epoch": "epoch",
    "training_global_step": "step",
    "training_loss": "loss",
    "validation_loss": "val_loss",
    "training_gradient_norm": "gradient_norm",
}
_LABELLED = {
    ("training_batches_total", "stage", "train"): "batches",
    ("training_samples_total", "stage", "train"): "samples",
    ("training_learning_rate", "group", "0"): "learning_rate",
    ("model_accuracy", "dataset", "train"): "accuracy",
    ("model_accuracy", "dataset", "val"): "val_accuracy",
    ("model_accuracy", "dataset", "test"): "test_accuracy",
    ("memory_usage_bytes", "component", "cuda_allocated"): "cuda_bytes",
    **{("training_phase_seconds_total", "phase", phase): PHASE + phase for phase in PHASES},
}
_BY_NAME = {PREFIX + name: column for name, column in _PLAIN.items()}
_BY_LABEL = {(PREFIX + name, value): column for (name, _, value), column in _LABELLED.items()}
_LABEL_OF = {PREFIX + name: label for name, label, _ in _LABELLED}
_PATIENCE = 1.0


def point_of(snapshot: Snapshot, host: HostSample | None, time: float) -> dict[str, float]:
    """Return what is known of a run at a time, in one pass over its metrics.

    Args:
        snapshot: Of its lowest rank.
        host: Latest sample of the host, whose memory is that of all runs together.
        time: Unix seconds.
    """
    point = {"time": time}
    for family in snapshot.families:
        for sample in family.samples:
            column = _column(sample.name, sample.labels)
            if column is not None:
                point[column] = sample.value
    if host is not None:
        point["memory_bytes"] = host.process + host.workers
        if host.cpu:
            point["cpu_percent"] = host.cpu_percent
        gpus = [value for (name, _), value in host.gpus.items() if name == "gpu_utilization_percent"]
        if gpus:
            point["gpu_percent"] = max(gpus)
    return point


def _column(name: str, labels: dict[str, str]) -> str | None:
    label = _LABEL_OF.get(name)
    return _BY_NAME.get(name) if label is None else _BY_LABEL.get((name, labels.get(label, "")))


class Courses:
    """Keeps the courses of the runs of an exporter, in their run directories where they have one.

    Args:
        host: Tells of the host.
        clock: Unix seconds.
    """

    def __init__(self, host: Host, clock: Callable[[], float] = time.time) -> None:
        self._host = host
        self._clock = clock
        self._background = ThreadPoolExecutor(1, "history")
        self._errors: deque[Exception] = deque(maxlen=100)

    def follow(self, run: Run) -> Iterator[Exception]:
        """Add a point to the course of a run that lives, the last one of one that has ended; yields what went wrong."""
        if run.ranks and run.lead.number > 0:  # of a run that begins on another node, which keeps its course
            return
        if run.history is None and run.ranks and not run.launching:
            folder = Path(run.record.run_dir) if run.record.run_dir else run.directory
            run.history = History(folder / FILE, self._background, self._errors.append)
        if run.history is not None and run.lead.snapshot.changed is not None:
            if run.live or not run.course_ended:
                run.history.add(point_of(run.lead.snapshot, self._host.sample, self._clock()))
            run.course_ended = not run.live
            if not run.live:
                run.history.finish()
        while self._errors:
            yield self._errors.popleft()

    def close(self) -> None:
        """Wait a moment for what is being written."""
        futures.wait([self._background.submit(int)], _PATIENCE)
        self._background.shutdown(wait=False, cancel_futures=True)
