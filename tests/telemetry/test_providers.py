"""Spans made with the user's own OpenTelemetry provider: theirs to sample, to export and to close."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from tiny import Tiny, fit, only_run

from liquid_telemetry import OpenTelemetrySpans, Telemetry
from liquid_telemetry.observe.backend import Correlation, SpanRef
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.observe.records import RunEnded, RunInfo, RunStarted
from liquid_telemetry.tracing.backend import TracingBackend
from liquid_telemetry.tracing.provider import ProviderSink

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class TestProviders:
    def provider(self, sampler=None):
        exporter, provider = InMemorySpanExporter(), TracerProvider(sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        for name in ("shutdown", "force_flush"):
            setattr(provider, name, lambda *_: pytest.fail("the provider is the user's"))
        return provider, exporter

    def test_the_users_provider_gets_every_span_and_stays_open(self):
        provider, exporter = self.provider()
        fit(Telemetry(tracer_provider=provider), max_epochs=1)
        spans = exporter.get_finished_spans()
        assert [span.name for span in spans] == [
            "fit started",
            "validation batch",
            "validation batch",
            "validation epoch",
            "train batch",
            "train batch",
            "train batch",
            "train epoch",
            "fit",
        ]
        ids = {span.context.span_id for span in spans}
        assert [span.name for span in spans if span.parent is None or span.parent.span_id not in ids] == [
            "fit started"
        ]
        run = only_run()
        assert not (run.dir / "traces.jsonl").exists()
        assert run.manifest["traces"] is None
        assert run.manifest["trace_id"] == f"{spans[0].context.trace_id:032x}"
        assert {event["trace_id"] for event in run.events} == {run.manifest["trace_id"]}
        with provider.get_tracer("mine").start_as_current_span("still works"):
            pass
        assert exporter.get_finished_spans()[-1].name == "still works"

    def test_a_failure_reaches_the_users_provider(self):
        provider, exporter = self.provider()

        class Failing(Tiny):
            def training_step(self, batch, batch_idx):
                raise ValueError("wires crossed")

        with pytest.raises(ValueError, match="wires crossed"):
            fit(OpenTelemetrySpans(tracer_provider=provider), model=Failing())
        fit_span = exporter.get_finished_spans()[-1]
        assert (fit_span.name, fit_span.status.description) == ("fit", "wires crossed")
        assert fit_span.attributes["error.type"] == "ValueError"
        assert fit_span.events[0].attributes["exception.message"] == "wires crossed"

    def test_every_rank_has_a_root_where_no_rank_can_choose_its_id(self):
        provider, exporter = self.provider()
        backend = TracingBackend(provider, None, None)
        run = RunInfo("run", "CfC", Path("run"), "train", True, 0, TRACE, PARENT, rank=1, world_size=2)
        backend.start(run, Correlation(), Faults())
        backend.handle(RunStarted(0))
        backend.handle(RunEnded(1, "completed", "train"))
        root, fit_span = exporter.get_finished_spans()
        assert (root.parent, fit_span.parent.span_id) == (None, root.context.span_id)

    def test_an_epoch_with_a_trace_of_its_own_is_no_part_of_the_job_around_it(self):
        provider, exporter = self.provider()
        sink = ProviderSink(provider)
        with provider.get_tracer("mine").start_as_current_span("my job") as job:
            sink.close(sink.open("train epoch", 0, {}, links=(SpanRef(TRACE, PARENT),)), 1, {})
        epoch = exporter.get_finished_spans()[0]
        assert epoch.parent is None
        assert epoch.context.trace_id != job.get_span_context().trace_id

    def test_a_provider_that_samples_nothing(self):
        fit(
            Telemetry(tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)),
            max_epochs=1,
        )
        text = next((only_run().spool / "runs").glob("*/0.prom")).read_text()
        assert "span_id" not in text

    def test_what_the_users_provider_does_not_sample_has_no_children(self):
        provider, exporter = self.provider(ParentBased(TraceIdRatioBased(0.0)))
        fit(Telemetry(tracer_provider=provider))
        assert exporter.get_finished_spans() == ()

    @pytest.mark.parametrize(("flags", "spans"), [("00", 0), ("01", 16)])
    def test_a_traceparent_that_is_not_sampled(self, flags, spans, monkeypatch):
        monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{PARENT}-{flags}")
        provider, exporter = self.provider()
        fit(Telemetry(tracer_provider=provider))
        assert len(exporter.get_finished_spans()) == spans

    def test_the_users_own_span_comes_before_a_traceparent(self, monkeypatch):
        monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{PARENT}-01")
        provider, exporter = self.provider()
        with provider.get_tracer("mine").start_as_current_span("my job") as job:
            fit(Telemetry(tracer_provider=provider))
        root, *_ = exporter.get_finished_spans()
        assert (root.name, root.parent) == ("fit started", job.get_span_context())

    def test_a_provider_that_is_switched_off_has_no_names(self, monkeypatch):
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        fit(Telemetry(tracer_provider=TracerProvider(shutdown_on_exit=False)))
        run = only_run()
        assert not any("span_id" in event for event in run.events)
        assert run.manifest["trace_id"] != "0" * 32

    def test_only_the_last_spans_are_remembered_and_the_root(self):
        provider, _ = self.provider()
        sink = ProviderSink(provider)
        root = sink.open("root", 0, {})
        for _ in range(200):
            sink.close(sink.open("epoch", 0, {}, root.ref), 1, {})
        assert len(sink._contexts) == 64
        assert root.ref in sink._contexts

    def test_the_global_provider_is_used_and_the_run_is_part_of_the_job_around_it(self, exporter):
        here = Path(__file__).parent
        finished = subprocess.run(
            [sys.executable, here / "scripts" / "global_provider.py", here.parent],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert finished.returncode == 0, finished.stderr
        names = json.loads(finished.stdout.splitlines()[-1])
        assert (names[0], names[-2:]) == ("fit started", ["fit", "my job"])
        assert exporter.address
