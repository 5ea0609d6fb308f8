"""Records to log events."""

from __future__ import annotations

import os
import signal
import traceback
from pathlib import Path
from typing import Any

import structlog

from liquid_telemetry.errors import text_of
from liquid_telemetry.files import LineFile, last_lines, rank_name, shortened
from liquid_telemetry.logs.render import render_json, timestamp
from liquid_telemetry.logs.terminal import Terminal
from liquid_telemetry.memory import memory_of
from liquid_telemetry.observe.backend import Correlation
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.outcome import TRACEBACK_CHARACTERS, phase_of
from liquid_telemetry.observe.records import (
    BatchBlock,
    CheckpointSaved,
    EpochEnded,
    Record,
    RunEnded,
    RunInfo,
    RunStarted,
    phase_seconds,
)
from liquid_telemetry.signals import EVENTS, LOG_TAIL

LOGGER = "liquid_telemetry"
_NONFINITE_EVERY_NS = 1_000_000_000


class StructlogBackend:
    """Writes events to the run directory, to a terminal, and to a logger of the user's.

    Args:
        logger: A structlog logger, whose own configuration is left as it is.
        console: Whether to print readable lines when stderr is a terminal.
    """

    signal = "logging"

    def __init__(self, logger: Any = None, console: bool = True) -> None:
        self._user_logger = logger
        self._terminal = Terminal() if console else None
        self._run: RunInfo | None = None
        self._file: LineFile | None = None
        self._max_epochs: int | None = None

    def start(self, run: RunInfo, correlation: Correlation, faults: Faults) -> None:
        """Bind a logger to the run."""
        self._correlation, self._faults = correlation, faults
        if run is not self._run:
            self._nonfinite = 0
            self._nonfinite_due = 0
            self._last_nonfinite: tuple[BatchBlock, int] | None = None
        self._run = run
        self._file = LineFile(run.dir / rank_name("events", run.rank))
        self._logger = structlog.wrap_logger(
            _Lines(self._file),
            processors=[render_json],
            wrapper_class=structlog.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=False,
        ).bind(logger=LOGGER, run_id=run.run_id, model_name=run.model_name)

    def handle(self, record: Record) -> None:
        """Log the event that the record is."""
        match record:
            case BatchBlock(stage="train"):
                self._batches(record)
            case EpochEnded(stage="train"):
                self._tell_nonfinite()
                if record.complete:
                    self._emit("training_epoch_completed", record.end_ns, **self._epoch(record))
            case EpochEnded(complete=True):
                self._emit("validation_completed", record.end_ns, stage=record.stage, **_pass(record))
            case CheckpointSaved():
                self._checkpoint(record)
            case RunStarted():
                self._started(record)
            case RunEnded():
                self._tell_nonfinite()
                self._ended(record)
            case _:
                pass

    def _emit(self, event: str, time_ns: int, **fields: Any) -> None:
        level = EVENTS[event].level
        span = self._correlation.epoch or self._correlation.run
        identity = {"trace_id": span.trace_id, "span_id": span.span_id} if span is not None else {}
        stamped = {"timestamp": timestamp(time_ns), "level": level, **identity, **fields}
        run = self._run
        with self._faults.guard(self.signal):
            getattr(self._logger, level)(event, **stamped)
        if self._terminal is not None and run is not None and run.rank == 0:
            self._terminal.show({**stamped, "event": event})
        if self._user_logger is not None and run is not None:
            names = {"run_id": run.run_id, "model_name": run.model_name}
            getattr(self._user_logger, level)(event, **names, **identity, **fields)

    def _started(self, record: RunStarted) -> None:
        run = self._run
        if run is None or run.stage != "train":
            return
        self._emit(
            "training_started",
            record.time_ns,
            stage=run.stage,
            resumed_from=record.resumed_from,
            parameters=record.parameters,
            max_epochs=record.max_epochs,
            batches_per_epoch=record.batches_per_epoch,
            strategy=run.strategy,
            world_size=run.world_size,
            rank=run.rank,
        )

    def _epoch(self, record: EpochEnded) -> dict[str, Any]:
        return {
            "epoch": record.epoch,
            "loss": record.loss,
            "accuracy": record.accuracy,
            "val_loss": record.val_loss,
            "val_accuracy": record.val_accuracy,
            "learning_rate": record.learning_rate,
            "duration_seconds": record.duration_seconds,
            "batches": record.batches,
            "samples": record.samples,
            "skipped_batches": record.skipped,
            "global_step": record.global_step,
            "samples_per_second": record.samples / record.duration_seconds
            if record.duration_seconds
            else None,
            "phases": phase_seconds(record.phase_ns),
            "metrics": dict(record.metrics),
        }

    def _batches(self, block: BatchBlock) -> None:
        for at in block.nonfinite:
            self._nonfinite += 1
            self._last_nonfinite = block, int(at)
            if block.end_ns[at] >= self._nonfinite_due:
                self._tell_nonfinite()

    def _tell_nonfinite(self) -> None:
        """Tell of the last loss that was not finite, and of how many there have been since the line before."""
        if self._last_nonfinite is None:
            return
        block, at = self._last_nonfinite
        end_ns = int(block.end_ns[at])
        self._nonfinite_due = end_ns + _NONFINITE_EVERY_NS
        self._emit(
            "training_nonfinite_loss",
            end_ns,
            epoch=block.epoch,
            batch=int(block.index[at]),
            global_step=int(block.global_step[at]),
            value=str(block.loss[at]),
            count=self._nonfinite,
        )
        self._nonfinite, self._last_nonfinite = 0, None

    def _checkpoint(self, record: CheckpointSaved) -> None:
        self._emit(
            "checkpoint_saved",
            record.end_ns,
            path=record.path,
            epoch=record.epoch,
            global_step=record.global_step,
            duration_seconds=record.duration_seconds,
        )

    def _ended(self, record: RunEnded) -> None:
        run = self._run
        if run is None:
            return
        duration = (record.time_ns - run.start_ns) / 1e9
        position = {
            "epoch": record.epoch,
            "batch": record.batch,
            "global_step": record.global_step,
            "loss": record.loss,
        }
        if record.outcome == "failed":
            self._failed(run, record, duration, position)
        elif record.outcome == "interrupted":
            fields = {**_ending(run, record), "duration_seconds": duration, **position}
            self._emit("training_interrupted", record.time_ns, **fields)
        elif record.stage == "train":
            self._emit(
                "training_completed",
                record.time_ns,
                duration_seconds=duration,
                epochs=record.epochs,
                global_step=record.global_step,
                batches=record.batches,
                phases=phase_seconds(record.phase_ns),
            )

    def _failed(self, run: RunInfo, record: RunEnded, duration: float, position: dict[str, Any]) -> None:
        error, memory = record.error, memory_of(os.getpid())
        self._emit(
            "training_failed",
            record.time_ns,
            **_ending(run, record),
            error_type=type(error).__name__ if error is not None else None,
            error_message=text_of(error) if error is not None else None,
            traceback="".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:] if error else None,
            duration_seconds=duration,
            **position,
            memory_process_bytes=memory.process if memory is not None else None,
            memory_workers_bytes=memory.workers if memory is not None else None,
            log_tail=self._tail(),
        )

    def _tail(self) -> list[str]:
        if self._file is None or not self._file.path.exists():
            return []
        return shortened(last_lines(self._file.path), LOG_TAIL)

    def outputs(self) -> dict[str, str | None]:
        """The event log."""
        path: Path | None = self._file.path if self._file is not None else None
        return {"events": os.fspath(path) if path else None}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


_SIGNALS = {"user": signal.SIGINT, "terminated": signal.SIGTERM}


def _ending(run: RunInfo, record: RunEnded) -> dict[str, Any]:
    """What an end tells besides where training stood; the exporter tells the same of a process that has died."""
    number = _SIGNALS.get(record.reason or "")
    code = record.error.code if isinstance(record.error, SystemExit) else None
    return {
        "stage": record.stage,
        "reason": record.reason,
        "known_by": "exception" if record.error is not None else "nothing",
        "exit_code": code if isinstance(code, int) and number is None else None,
        "signal": int(number) if number is not None else None,
        "signal_name": number.name if number is not None else None,
        "rank": run.rank,
        "pid": os.getpid(),
        "phase": phase_of(record.error) if record.error is not None else None,
    }


def _pass(record: EpochEnded) -> dict[str, Any]:
    return {
        "epoch": record.epoch,
        "loss": record.loss,
        "accuracy": record.accuracy,
        "duration_seconds": record.duration_seconds,
        "batches": record.batches,
        "samples": record.samples,
        "global_step": record.global_step,
        "metrics": dict(record.metrics),
    }


class _Lines:
    """What structlog calls a logger: a method for each level that takes the rendered line."""

    def __init__(self, file: LineFile) -> None:
        self._file = file

    def info(self, line: str) -> None:
        self._file.write(line + "\n")

    warning = error = info
