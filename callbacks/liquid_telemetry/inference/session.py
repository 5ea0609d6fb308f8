"""One process that infers: a run directory, a place in the spool, a thread that writes in the background."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry import trace

from liquid_telemetry import __version__
from liquid_telemetry.files import LineFile
from liquid_telemetry.inference.metrics import Counts
from liquid_telemetry.metrics.publish import Publisher
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.identity import draw_identity
from liquid_telemetry.observe.records import RunInfo
from liquid_telemetry.signals import TRACER
from liquid_telemetry.spool import find_sinks, write_atomically
from liquid_telemetry.tracing.endpoint import find_destination
from liquid_telemetry.tracing.provider import global_provider
from liquid_telemetry.tracing.requests import RequestTracer
from liquid_telemetry.tracing.resource import resource_of
from liquid_telemetry.tracing.send import Sender

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from prometheus_client import CollectorRegistry

EVERY = 1.0
_PATIENCE = 5.0


@dataclass(frozen=True)
class SessionOptions:
    """Where the signals of a process that infers go.

    Args:
        model_name: Name of the model.
        stage: What the process does, as the live page shows it.
        dir: Folder that gets a sub-folder.
        host: Address for the exporter to listen on.
        port: Its port.
        exporter: Whether the exporter process shows the metrics.
        events: Whether an event log is written beside.
        otlp_endpoint: Where spans are sent besides the file.
        traces_per_second: How many traces are kept of a second; where the provider is not ours, that decides.
        registry: Show the metrics there as well.
        tracer_provider: The user's.
    """

    model_name: str
    stage: str = "predict"
    dir: str | os.PathLike[str] = "runs"
    host: str = "127.0.0.1"
    port: int = 9464
    exporter: bool = True
    events: bool = False
    otlp_endpoint: str | None = None
    traces_per_second: float = 50.0
    registry: CollectorRegistry | None = None
    tracer_provider: TracerProvider | None = None


class Session:
    """Opened with the first request, closed at the end of the process.

    Attributes:
        info: Names of the run.
        counts: Its metrics.
        tracer: Makes its spans.
        faults: What went wrong with its telemetry.
    """

    def __init__(self, options: SessionOptions, counts: Counts, faults: Faults) -> None:
        self.counts, self.faults = counts, faults
        self.pid = os.getpid()
        start_ns = time.time_ns()
        run_id, trace_id, root, _ = draw_identity(start_ns, {})
        self.info = RunInfo(
            run_id=run_id,
            model_name=options.model_name,
            dir=Path(options.dir).absolute() / run_id,
            stage=options.stage,
            job=False,
            start_ns=start_ns,
            trace_id=trace_id,
            root_span_id=root,
        )
        self._options = options
        self._own: RequestTracer | None = None
        self._traces: Path | None = None
        self.tracer = self._choose_tracer()
        self._publisher: Publisher | None = None
        self._manifest = ""
        self._dirty, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="liquid-telemetry-inference", daemon=True)
        self._thread.start()

    def _choose_tracer(self) -> trace.Tracer | RequestTracer:
        provider = self._options.tracer_provider or global_provider()
        if provider is not None:
            return provider.get_tracer(TRACER, __version__)
        self._traces, sender, resource = (
            self.info.dir / "traces.jsonl",
            None,
            resource_of(self.info, os.environ),
        )
        with self.faults.guard("tracing"):
            destination = find_destination(self._options.otlp_endpoint, os.environ)
            if destination is not None:
                sender = Sender(destination, resource, self.faults, self._traces)
        per_second = self._options.traces_per_second
        self._own = RequestTracer(LineFile(self._traces), resource, self.faults, sender, per_second)
        return self._own

    def touch(self) -> None:
        """Something has happened that is to be written within a second."""
        if not self._dirty.is_set():
            self._dirty.set()

    def close(self) -> None:
        """Write the rest, within a bounded time. Safe to call twice."""
        if self.pid != os.getpid() or self._closing.is_set():
            return
        self._closing.set()
        self._dirty.set()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        with self.faults.guard("metrics"):
            self._open()
        while not self._closing.is_set():
            self._write()
            self._dirty.wait()
            self._closing.wait(EVERY)
            self._dirty.clear()
        with self.faults.guard("tracing"):
            if self._own is not None:
                self._own.close()
        self._write()
        with self.faults.guard("metrics"):
            if self._publisher is not None:
                self._publisher.tell(status="completed", ended=time.time())
                self._publisher.close()

    def _open(self) -> None:
        options = self._options
        self._write_manifest()
        if not options.exporter:
            return
        sinks = find_sinks(None, None, False, os.environ)
        publisher = Publisher(self.info, options.host, options.port, sinks)
        publisher.open(self._files())
        publisher.tell(status="running")
        self._publisher = publisher

    def _write(self) -> None:
        with self.faults.guard("tracing"):
            if self._own is not None:
                self._own.flush()
        with self.faults.guard("metrics"):
            if self._publisher is not None:
                self.counts.publish(self._publisher)
            self._write_manifest()

    def _files(self) -> dict[str, str | None]:
        events = self.info.dir / "events.jsonl" if self._options.events else None
        paths = {"events": events, "traces": self._traces}
        return {name: os.fspath(path) if path is not None else None for name, path in paths.items()}

    def _write_manifest(self) -> None:
        said = {
            "run_id": self.info.run_id,
            "trace_id": None,
            "pid": self.pid,
            "metrics_url": None,
            **self._files(),
            "spool": None,
            "checkpoints": None,
            "resumed_from": None,
        }
        if self._publisher is not None:
            said |= self._publisher.outputs()
        text = json.dumps(said, indent=2) + "\n"
        if text != self._manifest:
            self._manifest = text
            self.info.dir.mkdir(parents=True, exist_ok=True)
            write_atomically(self.info.dir / "telemetry.json", text.encode())
