"""Handing the metrics to the exporter process: a seat in the spool, a snapshot at most once a second."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from prometheus_client.openmetrics.exposition import generate_latest

from liquid_telemetry.metrics.stacks import StackFile
from liquid_telemetry.metrics.store import Store
from liquid_telemetry.observe.pulse import Heart
from liquid_telemetry.observe.records import RunInfo
from liquid_telemetry.signals import RANK_METRICS
from liquid_telemetry.spool import (
    ExporterAddress,
    RunRecord,
    RunSeat,
    Sink,
    ensure_exporter,
    exporter_address,
    spool_dir,
    start_exporter,
)
from liquid_telemetry.spool import wait_exporter as _wait_exporter

_log = logging.getLogger("liquid_telemetry")
SNAPSHOT_EVERY = 1.0
MILESTONE_EVERY = 0.2
NODE_METRICS = ("training_info", *RANK_METRICS)
"""Metrics that the first rank of every other node publishes: its exporter sees no rank 0, but is to name the run."""

wait_exporter = partial(_wait_exporter, timeout=0.25)
"""A run may be over before the exporter that it started serves: so long may its end wait to name the address."""


class Publisher:
    """One rank's link to the exporter process.

    Args:
        run: Whose metrics these are.
        host: Address that the exporter is asked to listen on, if it is not running yet.
        port: Its port; 0 for a free one.
        sinks: Where the exporter is to send the metrics besides.
    """

    def __init__(self, run: RunInfo, host: str, port: int, sinks: Sequence[Sink] = ()) -> None:
        self._run = run
        self._host, self._port, self._sinks = host, port, list(sinks)
        self._spool = spool_dir()
        self._seat: RunSeat | None = None
        self._record: RunRecord | None = None
        self._heart: Heart | None = None
        self._stacks: StackFile | None = None
        self._address: ExporterAddress | None = None
        self._due: dict[str, float] = {}
        self._started = self._waited = False

    def open(self, outputs: Mapping[str, str | None], heart: Heart | None = None) -> None:
        """Take the seat; a later stage of an ended run keeps its outcome.

        Args:
            outputs: What the other signals of the run write, for the exporter to finish after a death.
            heart: Whose pulse the exporter is to see.
        """
        record = self._record
        if record is None or record.status == "tuned":
            record = self._new_record()
        record = replace(
            record,
            events=outputs.get("events"),
            traces=outputs.get("traces"),
            trace_id=outputs.get("trace_id"),
            trace_url=outputs.get("trace_url"),
        )
        self._seat = RunSeat.take(self._spool, record)
        if heart is not None:
            self._show_pulse(self._seat, heart)
        if self._run.local_rank == 0:
            self._started = start_exporter(self._spool, self._host, self._port)

    def _show_pulse(self, seat: RunSeat, heart: Heart) -> None:
        with suppress(OSError, ValueError):  # no stacks then, as in an interpreter within another
            self._stacks = StackFile(seat.stacks)
            heart.signals = self._stacks.ask, self._stacks.dump
        self._heart, heart.write = heart, seat.beat
        heart.tell()

    def _new_record(self) -> RunRecord:
        run = self._run
        return RunRecord(
            run_id=run.run_id,
            model_name=run.model_name,
            rank=run.rank,
            world_size=run.world_size,
            node=run.node_rank,
            job=run.job,
            stage=run.stage,
            started=run.start_ns / 1e9,
            run_dir=os.fspath(run.dir),
            sinks=self._sinks or None,
        )

    def tell(self, **changes: Any) -> None:
        """Change the record."""
        if self._seat is not None:
            self._seat.update(**changes)

    def continue_with(self, stage: str) -> None:
        """A later stage of a run that has ended begins: the run is to be shown until that is over, too."""
        if self._seat is not None and self._seat.record.final:
            self._seat.update(stage=stage)

    def publish(self, store: Store, *, force: bool = False, milestone: str = "", **position: Any) -> None:
        """Hand over the metrics and where training stands, unless that was done within the last second.

        Args:
            store: The metrics.
            force: Whether to do so whenever that was.
            milestone: What has been reached that somebody may wait for, and that a death should not take with it:
                handed over unless another of the kind was just before.
            position: Changes of the record.
        """
        now = time.monotonic()
        if self._seat is None or not (force or now >= self._due.get(milestone, 0.0)):
            return
        self._due[""] = now + SNAPSHOT_EVERY
        if milestone:
            self._due[milestone] = now + MILESTONE_EVERY
        if self._run.local_rank == 0 and ensure_exporter(self._spool, self._host, self._port):
            self._address = None
        if position:
            self._seat.update(**position)
        if self._run.rank == 0:
            self._seat.publish(generate_latest(store))  # type: ignore[no-untyped-call]
        elif part := store.part(NODE_METRICS if self._run.local_rank == 0 else RANK_METRICS):
            self._seat.publish(generate_latest(part))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Give up the seat; a run that never got to train was a Tuner's.

        The exporter, once it serves, finds the run in the spool: nothing waits for it but the line that names it.
        """
        if self._seat is not None:
            with suppress(OSError):  # the seat is given up although a disk is full
                if not self._seat.record.final:
                    self._seat.update(status="tuned")
            self._record = self._seat.record
            self._hide_pulse()
            self._seat.release()
            self._seat = None
            if self._started and not self._waited and self._address is None:
                self._wait()

    def _hide_pulse(self) -> None:
        if self._heart is not None:
            self._heart.write = None
        if self._stacks is not None:
            with suppress(OSError):  # it lies on a disk that may have become read-only
                self._stacks.close()
            self._stacks = None

    def _wait(self) -> None:
        self._waited = True
        wait_exporter(self._spool)
        if self.outputs()["metrics_url"] is None:
            _tell(
                f"run {self._run.run_id}: the exporter starts; {self._spool / 'exporter.json'} will name it"
            )

    def outputs(self) -> dict[str, str | None]:
        """Where the metrics are served, once that is known."""
        if self._address is None:
            self._address = exporter_address(self._spool)
            if self._address is not None and self._run.local_rank == 0:
                self._announce(self._address)
        url = f"{self._address.url}/metrics" if self._address is not None else None
        return {"metrics_url": url, "spool": os.fspath(self._spool)}

    def _announce(self, address: ExporterAddress) -> None:
        _tell(f"run {self._run.run_id}: live page {address.url}/, metrics {address.url}/metrics")
        remark = address.remark(self._host, self._port)
        if remark is not None:
            _log.warning("%s", remark)


def _tell(text: str) -> None:
    """Say it in the log and, because that seldom shows such lines, on stderr."""
    _log.info("%s", text)
    with suppress(AttributeError, OSError, ValueError):  # a program may have no stderr, or have closed it
        sys.stderr.write(f"liquid_telemetry: {text}\n")
