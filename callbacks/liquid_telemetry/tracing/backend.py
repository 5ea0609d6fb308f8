"""Records to spans."""

from __future__ import annotations

import os
from pathlib import Path

from opentelemetry.trace import TracerProvider

from liquid_telemetry.files import LineFile, rank_name
from liquid_telemetry.observe.backend import Correlation, Exemplar, SpanRef
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.identity import is_sampled
from liquid_telemetry.observe.records import (
    BatchBlock,
    CheckpointSaved,
    EpochEnded,
    EpochStarted,
    Record,
    RunEnded,
    RunInfo,
    RunStarted,
)
from liquid_telemetry.tracing.attributes import failure_of, known, phase_durations
from liquid_telemetry.tracing.batch_template import batch_attributes
from liquid_telemetry.tracing.budget import Budget, SlowBatches
from liquid_telemetry.tracing.endpoint import find_destination, find_page
from liquid_telemetry.tracing.epoch import Epoch
from liquid_telemetry.tracing.otlp_json import SpanData, Value
from liquid_telemetry.tracing.own import OwnSink
from liquid_telemetry.tracing.provider import ProviderSink, global_provider, is_within_a_span
from liquid_telemetry.tracing.ranks import Place, Ranks
from liquid_telemetry.tracing.resource import resource_of
from liquid_telemetry.tracing.send import Sender
from liquid_telemetry.tracing.sink import BatchSpan, OpenSpan, Sink
from liquid_telemetry.tracing.unfinished import forget_unfinished, write_unfinished


class TracingBackend:
    """One trace for a run: root, epochs, batches, validations, checkpoints, and a summary written last.

    Args:
        provider: The user's; else the global SDK provider, else our own.
        otlp_endpoint: Where our own sends spans besides the file.
        trace_url: Where a person sees a trace, with ``{trace_id}`` for its id.
    """

    signal = "tracing"

    def __init__(
        self, provider: TracerProvider | None, otlp_endpoint: str | None, trace_url: str | None
    ) -> None:
        self._provider = provider
        self._endpoint = otlp_endpoint
        self._trace_url = self._page = trace_url
        self._run: RunInfo | None = None
        self._root: SpanRef | None = None
        self._fit: OpenSpan | None = None
        self._epoch: Epoch | None = None
        self._inner: Epoch | None = None
        self._last_epoch: Epoch | None = None
        self._aborted: list[tuple[OpenSpan, int, dict[str, Value]]] = []
        self._traces: Path | None = None

    def start(self, run: RunInfo, correlation: Correlation, faults: Faults) -> None:
        """Choose the sink for a run, or open it again."""
        self._correlation, self._faults = correlation, faults
        if run is not self._run:
            self._root = self._fit = self._epoch = self._inner = self._last_epoch = None
            self._aborted, self._budget, self._omits_inner = [], Budget(), False
            self._ranks: Ranks | None = None
            self._slow = {stage: SlowBatches() for stage in ("train", "validation", "test", "predict")}
        self._run = run
        self._parent = SpanRef(run.trace_id, run.parent_span_id) if run.parent_span_id else None
        self._resource = resource_of(run, os.environ)
        provider = self._provider or global_provider()
        if provider and is_within_a_span():
            self._parent = None  # that span, which the provider takes by itself
        self._sink: Sink = (
            ProviderSink(provider, is_sampled(os.environ)) if provider else self._own_sink(run, faults)
        )
        self._traces = None if provider else run.dir / rank_name("traces", run.rank)
        if self._ranks is None and self._traces is not None and run.world_size > 1:
            self._ranks = Ranks(run)
            self._budget = self._ranks.budget()

    def _own_sink(self, run: RunInfo, faults: Faults) -> OwnSink:
        file, sender = run.dir / rank_name("traces", run.rank), None
        with faults.guard("tracing"):
            destination = find_destination(self._endpoint, os.environ)
            self._page = find_page(self._trace_url, destination)
            if destination is not None:
                sender = Sender(destination, self._resource, faults, file)
        return OwnSink(LineFile(file), self._resource, run.trace_id, sender)

    def handle(self, record: Record) -> None:
        """Open, close or write the spans that the record concerns."""
        match record:
            case BatchBlock():
                self._batches(record)
            case EpochStarted():
                self._epoch_started(record)
            case EpochEnded():
                self._epoch_ended(record)
            case CheckpointSaved():
                self._checkpoint(record)
            case RunStarted():
                self._started(record)
            case RunEnded():
                self._ended(record)
            case _:
                pass

    @property
    def _named(self) -> RunInfo:
        assert self._run is not None
        return self._run

    def _started(self, record: RunStarted) -> None:
        run = self._named
        if run.stage != "train":
            return
        if run.rank == 0 or self._traces is None:
            attributes = known(
                {
                    "run.id": run.run_id,
                    "model.name": run.model_name,
                    "model.parameters": record.parameters,
                    "resumed_from": record.resumed_from,
                }
            )
            root = self._sink.open(
                "fit started", run.start_ns, attributes, self._parent, span_id=run.root_span_id
            )
            self._sink.close(root, run.start_ns, {})
            self._root = root.ref
        else:
            self._root = SpanRef(run.trace_id, run.root_span_id)
        self._correlation.run = _there(self._root)
        identity = known({"run.id": run.run_id, "model.name": run.model_name})
        self._fit = self._sink.open("fit", run.start_ns, identity, self._root)
        self._budget.used += 2
        self._sink.flush()
        self._note_unfinished()

    def _epoch_started(self, record: EpochStarted) -> None:
        name = f"{record.stage} epoch"
        attributes = known({"run.id": self._named.run_id, "stage": record.stage, "epoch.index": record.epoch})
        within = self._epoch is not None and record.stage != "train"
        if within and self._epoch is not None:
            if self._ranks is not None:
                self._ranks.plan(record.expected_batches or 0)
            self._omits_inner = not self._has_room(self._epoch.budget)
            if self._omits_inner:
                return
            span = self._sink.open(name, record.start_ns, attributes, self._epoch.span.ref)
            self._inner = Epoch(span, self._epoch.budget, record.expected_batches)
            self._note_unfinished()
            return
        self._omits_inner = False
        place, budget = self._place(record)
        span = self._sink.open(name, record.start_ns, attributes, **place._asdict())
        budget.used += 1
        self._epoch = Epoch(span, budget, record.expected_batches)
        self._correlation.epoch = _there(span.ref)
        self._note_unfinished()

    def _place(self, record: EpochStarted) -> tuple[Place, Budget]:
        """Where the span of an epoch goes, and what bounds that trace."""
        expected = record.expected_batches or self._budget.limit // 2
        if self._root is None:
            return Place(self._parent), self._budget
        if self._ranks is not None and record.stage == "train":
            place, fits = self._ranks.place(record.epoch, expected, self._root)
            return place, self._budget if fits else self._ranks.budget()
        if self._budget.fits(expected + 1):
            return Place(self._root), self._budget
        return Place(None, (self._root,)), Budget()

    def _has_room(self, budget: Budget) -> bool:
        """Take a span for a validation or a checkpoint, if there is one."""
        if budget.take(1, telling=True):
            return True
        self._faults.drop("tracing", "trace_full")
        return False

    def _open_epoch(self, stage: str) -> Epoch | None:
        if self._omits_inner and stage != "train":
            return None
        return self._inner if self._inner is not None and stage != "train" else self._epoch

    def _batches(self, block: BatchBlock) -> None:
        epoch = self._open_epoch(block.stage)
        if epoch is None:
            return
        kept = epoch.choose(block, self._slow[block.stage])
        if block.unfinished and kept and kept[-1].batch_index == block.index[-1]:
            self._unfinished(block, epoch, kept.pop())
        if not kept:
            return
        ids = self._sink.batches(f"{block.stage} batch", epoch.span, kept)
        if ids:
            durations = [span.end_ns - span.start_ns for span in kept]
            longest = max(durations)
            span_id = ids[durations.index(longest)]
            self._correlation.exemplar = Exemplar(longest / 1e9, SpanRef(epoch.span.ref.trace_id, span_id))
        self._sink.flush()

    def _unfinished(self, block: BatchBlock, epoch: Epoch, batch: BatchSpan) -> None:
        """The batch in which the run ended gets its end when it is known how."""
        name = f"{block.stage} batch"
        span = self._sink.open(name, batch.start_ns, epoch.span.attributes, epoch.span.ref)
        self._aborted.append((span, batch.end_ns, batch_attributes(batch)))

    def _epoch_ended(self, record: EpochEnded) -> None:
        epoch = self._open_epoch(record.stage)
        if epoch is None:
            self._omits_inner = False
            return
        attributes = known(
            {
                "global_step": record.global_step,
                "loss": record.loss,
                "accuracy": record.accuracy,
                "learning_rate": record.learning_rate,
                "batches.total": record.batches,
                "batches.recorded": epoch.recorded,
                "batches.kept": epoch.kept,
                "samples.total": record.samples,
                **phase_durations(record.phase_ns),
            }
        )
        if record.complete:
            self._sink.close(epoch.span, record.end_ns, attributes)
        else:
            self._aborted.append((epoch.span, record.end_ns, attributes))
        within = epoch is self._inner
        if within:
            self._inner = None
        else:
            self._last_epoch, self._epoch = epoch, None
        self._sink.flush()
        if within:
            # The other epoch may go on to write more than is searched for spans that are there.
            self._note_unfinished()

    def _checkpoint(self, record: CheckpointSaved) -> None:
        epoch = self._epoch or self._last_epoch
        if not self._has_room(epoch.budget if epoch is not None else self._budget):
            return
        parent = epoch.span.ref if epoch is not None else self._root
        attributes = known(
            {
                "run.id": self._named.run_id,
                "checkpoint.path": record.path,
                "epoch.index": record.epoch,
                "global_step": record.global_step,
            }
        )
        self._sink.close(
            self._sink.open("checkpoint", record.start_ns, attributes, parent), record.end_ns, {}
        )

    def _ended(self, record: RunEnded) -> None:
        self._correlation.epoch = None
        failure = failure_of(record)
        for span, end_ns, attributes in self._aborted:
            self._sink.close(span, end_ns, attributes, failure)
        self._aborted = []
        if self._fit is not None and record.stage == "train":
            attributes = known(
                {
                    "outcome": record.outcome,
                    "reason": record.reason,
                    "global_step": record.global_step,
                    "batches.total": record.batches,
                    **phase_durations(record.phase_ns),
                }
            )
            self._sink.close(self._fit, record.time_ns, attributes, failure)
            self._fit = None
        self._sink.flush()
        if self._traces is not None and self._named.rank == 0:
            forget_unfinished(self._traces.parent)

    def _note_unfinished(self) -> None:
        if self._traces is None or self._named.rank != 0:
            return
        epochs = (epoch and epoch.span for epoch in (self._epoch, self._inner))
        spans = [span for span in (self._fit, *epochs) if span]
        notes = [
            SpanData(
                name=span.name,
                trace_id=span.ref.trace_id,
                span_id=span.ref.span_id,
                parent_id=span.parent.span_id if span.parent else None,
                start_ns=span.start_ns,
                end_ns=span.start_ns,
                attributes=span.attributes,
                links=span.links,
            )
            for span in spans
        ]
        write_unfinished(self._traces.parent, self._resource, notes)

    def outputs(self) -> dict[str, str | None]:
        """The trace and its file."""
        if self._run is None:
            return {}
        root = _there(self._root)
        trace_id = root.trace_id if root is not None else self._run.trace_id
        page = self._page.replace("{trace_id}", trace_id) if self._page else None
        traces = os.fspath(self._traces) if self._traces else None
        return {"trace_id": trace_id, "traces": traces, "trace_url": page}

    def close(self) -> None:
        """Write the rest; a sender has a deadline."""
        self._sink.shutdown()


def _there(ref: SpanRef | None) -> SpanRef | None:
    """A span's names, unless the provider makes none, as with ``OTEL_SDK_DISABLED``."""
    return None if ref is None or int(ref.trace_id, 16) == 0 else ref
