"""Telemetry of a command that trains nothing, such as an export or a benchmark: its directory, events and metrics."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liquid_telemetry.errors import text_of
from liquid_telemetry.files import LineFile
from liquid_telemetry.logs.backend import LOGGER
from liquid_telemetry.logs.render import render_json, timestamp
from liquid_telemetry.metrics.publish import Publisher
from liquid_telemetry.metrics.store import Store
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.identity import draw_identity
from liquid_telemetry.observe.records import RunInfo
from liquid_telemetry.signals import EVENTS
from liquid_telemetry.spool import find_sinks, write_atomically
from liquid_telemetry.switch import is_switched_off


@dataclass(frozen=True)
class Place:
    """Where a command tells of itself.

    Args:
        dir: Folder that gets a run directory.
        host: Address for the exporter to listen on, if none lives.
        port: Its port; 0 for a free one.
    """

    dir: Path = Path("runs")
    host: str = "127.0.0.1"
    port: int = 9464


class CommandRun:
    """A run that is no job: a run directory with an event log, a seat in the spool, metrics by the exporter.

    A fault of the telemetry is logged once and never reaches the command. With `LIQUID_TELEMETRY_ENABLED=0` nothing is
    written and served.

    Args:
        command: What runs, as the stage of the run: `export`, `bench`.
        model_name: Of the model that it is about.
        place: Where it tells of itself.
    """

    def __init__(self, command: str, model_name: str, place: Place) -> None:
        start_ns = time.time_ns()
        run_id, trace_id, root_span_id, parent_span_id = draw_identity(start_ns, os.environ)
        self.run = RunInfo(
            run_id=run_id,
            model_name=model_name,
            dir=Path(place.dir).absolute() / run_id,
            stage=command,
            job=False,
            start_ns=start_ns,
            trace_id=trace_id,
            root_span_id=root_span_id,
            parent_span_id=parent_span_id,
        )
        self.store = Store(model_name)
        """What it measures; :meth:`publish` hands it over."""
        self.enabled = not is_switched_off()
        self._faults = Faults()
        self._place = place
        self._log = LineFile(self.run.dir / "events.jsonl")
        self._publisher: Publisher | None = None

    def start(self, zero: Callable[[Store], None]) -> None:
        """Take the seat and show the counters before their first increase, or Prometheus cannot see it.

        Args:
            zero: Puts them into the store.
        """
        with self._faults.guard("metrics"):
            zero(self.store)
            if self.enabled:
                sinks = find_sinks(None, None, False, os.environ)
                publisher = Publisher(self.run, self._place.host, self._place.port, sinks)
                publisher.open({"events": os.fspath(self._log.path)})
                publisher.tell(status="running")
                self._publisher = publisher
        self.publish()

    def emit(self, event: str, **fields: Any) -> None:
        """Write an event of the catalogue."""
        level = EVENTS[event].level
        names = {"logger": LOGGER, "run_id": self.run.run_id, "model_name": self.run.model_name}
        line = {"timestamp": timestamp(time.time_ns()), "level": level, "event": event, **names, **fields}
        if self.enabled:
            with self._faults.guard("logging"):
                self._log.write(render_json(None, level, line) + "\n")

    def publish(self) -> None:
        """Hand over the metrics."""
        with self._faults.guard("metrics"):
            if self._publisher is not None:
                self._publisher.publish(self.store, force=True)
                self._write_manifest(self._publisher.outputs())

    def close(self, outcome: str, error: BaseException | None = None) -> None:
        """Tell how it ended and give up the seat.

        Args:
            outcome: `completed`, `failed` or `interrupted`.
            error: Why it failed.
        """
        self.publish()
        with self._faults.guard("metrics"):
            if self._publisher is not None:
                told = (
                    {"error_type": type(error).__name__, "error_message": text_of(error, 1000)}
                    if error
                    else {}
                )
                self._publisher.tell(status=outcome, ended=time.time(), **told)
                self._publisher.close()
                self._write_manifest(self._publisher.outputs())
        self._log.close()

    def _write_manifest(self, outputs: dict[str, str | None]) -> None:
        run = self.run
        run.dir.mkdir(parents=True, exist_ok=True)
        said = {
            "run_id": run.run_id,
            "trace_id": run.trace_id,
            "pid": os.getpid(),
            "metrics_url": outputs.get("metrics_url"),
            "events": os.fspath(self._log.path),
            "traces": None,
            "spool": outputs.get("spool"),
            "checkpoints": None,
            "resumed_from": None,
        }
        write_atomically(run.dir / "telemetry.json", (json.dumps(said, indent=2) + "\n").encode())
