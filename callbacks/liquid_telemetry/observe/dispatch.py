"""Hands records to the backends: in order, each guarded, tracing first."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

from torch import Tensor

from liquid_telemetry.observe.backend import Backend, Correlation
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.pulse import Heart
from liquid_telemetry.observe.records import Record, RunInfo
from liquid_telemetry.observe.scalars import DeferredScalars
from liquid_telemetry.spool import write_atomically

MANIFEST = "telemetry.json"
_ORDER = {"tracing": 0, "metrics": 2}
_KEYS = (
    "run_id",
    "trace_id",
    "pid",
    "metrics_url",
    "events",
    "traces",
    "spool",
    "checkpoints",
    "resumed_from",
)


class Dispatcher:
    """Delivers records to the backends of one observer.

    A record that needs numbers from a device waits for them, and so do all records after it: every backend sees
    one order. Tracing comes first, so that logs and metrics can name the spans it has opened; metrics come last.

    Args:
        backends: One for each signal.
        faults: Where their faults are counted.
        deferred: Numbers under way.
    """

    def __init__(
        self, backends: Sequence[Backend], faults: Faults, deferred: DeferredScalars | None = None
    ) -> None:
        self.backends = sorted(backends, key=lambda backend: _ORDER.get(backend.signal, 1))
        self.facts: dict[str, str | None] = {}
        self._faults = faults
        self._deferred = deferred or DeferredScalars()
        self._manifest = ""
        self._run: RunInfo | None = None
        self._correlation = Correlation(Heart(faults))

    @property
    def heart(self) -> Heart:
        """The pulse of the run."""
        return self._correlation.heart

    def start(self, run: RunInfo) -> None:
        """Open every backend for a run."""
        if self._run is not run:
            self._run, self.facts, self._manifest = run, {}, ""
            self._correlation = Correlation(Heart(self._faults))
        for backend in self.backends:
            with self._faults.guard(backend.signal):
                backend.start(run, self._correlation, self._faults)
                self._correlation.outputs.update(backend.outputs())
        self.write_manifest()

    def emit(self, record: Record) -> None:
        """Deliver a record after those before it."""
        self._deferred.submit((), lambda _: self._deliver(record))

    def emit_with(
        self, tensors: Sequence[Tensor], build: Callable[[Sequence[float] | None], Record | None]
    ) -> None:
        """Deliver the record that ``build`` makes of the tensors' values, once they are there."""

        def then(values: Sequence[float] | None) -> None:
            record = build(values)
            if record is not None:
                self._deliver(record)

        self._deferred.submit(tensors, then)

    def poll(self) -> None:
        """Deliver what has arrived, and tell the manifest what has become known."""
        self._deferred.poll()
        self.write_manifest()

    def settle(self) -> None:
        """Deliver everything, waiting for what is still under way."""
        self._deferred.finish()

    def close(self) -> None:
        """Deliver everything and close every backend."""
        with self._faults.guard("observer"):
            self._deferred.finish()
        if self._deferred.given_up:
            self._faults.drop("metrics", "device_copies", self._deferred.given_up)
            self._deferred.given_up = 0
        for backend in self.backends:
            with self._faults.guard(backend.signal):
                backend.close()
        self.write_manifest()

    def _deliver(self, record: Record) -> None:
        for backend in self.backends:
            try:
                backend.handle(record)
            except Exception as error:
                self._faults.report(backend.signal, error)

    def write_manifest(self) -> None:
        """Write ``telemetry.json`` if it would say something new."""
        with self._faults.guard("manifest"):
            if self._run is not None and self._run.rank == 0:
                self._write(self._run)

    def _write(self, run: RunInfo) -> None:
        for backend in self.backends:
            self._correlation.outputs.update(backend.outputs())
        known = {"run_id": run.run_id, "pid": os.getpid(), **self.facts, **self._correlation.outputs}
        said = {key: known.get(key) for key in _KEYS}
        if known.get("trace_url"):
            said["trace_url"] = known["trace_url"]
        text = json.dumps(said, indent=2) + "\n"
        if text != self._manifest:
            self._manifest = text
            run.dir.mkdir(parents=True, exist_ok=True)
            write_atomically(run.dir / MANIFEST, text.encode())
