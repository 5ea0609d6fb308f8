"""Where spans go, whose they are, and how many there may be."""

import gzip
import os
import socket
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import grpc
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from servers import eventually, free_port
from tiny import Tiny, TinyData, fit, lines, only_run, samples, trainer

from liquid_telemetry import OpenTelemetrySpans, Telemetry
from liquid_telemetry.files import LineFile
from liquid_telemetry.tracing.budget import Budget
from liquid_telemetry.tracing.endpoint import Destination, find_page

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class TestEnvironment:
    def test_traceparent_is_the_parent_of_the_run(self, monkeypatch):
        monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{PARENT}-01")
        fit(Telemetry(), max_epochs=1)
        spans = only_run().spans
        assert {span["traceId"] for span in spans} == {TRACE} == {only_run().manifest["trace_id"]}
        assert spans[0]["parentSpanId"] == PARENT

    def test_traceparent_is_the_parent_of_a_test_alone(self, monkeypatch):
        monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-{PARENT}-01")
        trainer(Telemetry()).test(Tiny(), datamodule=TinyData(), verbose=False)
        (span,) = only_run().spans_named("test epoch")
        assert (span["traceId"], span["parentSpanId"]) == (TRACE, PARENT)

    @pytest.mark.parametrize("value", ["", "junk", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01"])
    def test_a_damaged_traceparent_is_ignored(self, monkeypatch, value):
        monkeypatch.setenv("TRACEPARENT", value)
        fit(Telemetry(), max_epochs=1)
        root = only_run().spans[0]
        assert "parentSpanId" not in root
        assert root["traceId"] not in (TRACE, "0" * 32)

    def test_resource_attributes_have_the_last_word(self, monkeypatch):
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=liquid%20nets,service.name=lost,broken")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "trainer-7")
        fit(Telemetry(), max_epochs=1)
        resource = only_run().spans[0]["resource"]
        assert (resource["team"], resource["service.name"]) == ("liquid nets", "trainer-7")
        assert resource["liquid_train.run.id"] == only_run().run_id
        assert resource["process.pid"] == os.getpid()


def test_checkpoints_after_epochs_with_traces_of_their_own_have_room(monkeypatch):
    monkeypatch.setattr("liquid_telemetry.tracing.budget.SPANS_PER_TRACE", 20)
    monkeypatch.setattr(Budget.__init__, "__defaults__", (20,))
    fit(Telemetry(), ModelCheckpoint("kept", save_top_k=-1), enable_checkpointing=True, max_epochs=60)
    run = only_run()
    assert len(run.spans_named("checkpoint")) == 60
    assert not any(dict(key)["reason"] for key in run.metrics["telemetry_dropped_total"])


def test_files_rotate(monkeypatch):
    monkeypatch.setattr(LineFile.__init__, "__defaults__", (4000, 3))
    fit(Telemetry(), max_epochs=6)
    run = only_run()
    parts = sorted({path.name for path in run.dir.iterdir()} - {"history.jsonl"})
    assert parts == [
        *("events.1.jsonl", "events.2.jsonl", "events.jsonl"),
        "telemetry.json",
        *("traces.1.jsonl", "traces.2.jsonl", "traces.jsonl"),
    ]
    assert lines(run.dir / "events.jsonl")[-1]["event"] == "training_completed"
    assert run.spans[-1]["name"] == "fit"
    assert all(lines(run.dir / part) for part in parts if part.endswith("jsonl"))


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP."""

    def __init__(self):
        self.requests = []
        super().__init__(("127.0.0.1", 0), _handler(self.requests))
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}"


def _handler(requests):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    return Handler


def received(requests):
    return [
        span
        for _, request in requests
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def check_received(requests, run):
    """What arrived is what the file has."""
    spans = {span["spanId"]: span for span in run.spans}
    found = received(requests)
    assert [span.span_id.hex() for span in found] == list(spans)
    for span in found:
        written = spans[span.span_id.hex()]
        assert span.name == written["name"]
        assert span.trace_id.hex() == written["traceId"]
        assert span.parent_span_id.hex() == written.get("parentSpanId", "")
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (written["start"], written["end"])
        values = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}
        assert values == written["attributes"]
    (_, first), *_ = requests
    resource = {pair.key for pair in first.resource_spans[0].resource.attributes}
    assert resource == run.spans[0]["resource"].keys()


@pytest.fixture
def collector():
    server = Collector()
    yield server
    server.shutdown()
    server.server_close()


class TestSending:
    def test_over_http_by_option(self, collector):
        fit(Telemetry(otlp_endpoint=collector.url))
        assert {path for path, _ in collector.requests} == {"/v1/traces"}
        check_received(collector.requests, only_run())

    def test_over_http_by_the_standard_variable(self, collector, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        fit(Telemetry())
        check_received(collector.requests, only_run())

    @pytest.mark.parametrize(
        ("name", "value"), [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true")]
    )
    def test_switched_off_by_the_standard_variables(self, collector, monkeypatch, name, value):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv(name, value)
        fit(Telemetry(), max_epochs=1)
        assert not collector.requests
        assert only_run().spans

    def test_over_grpc(self, monkeypatch):
        requests = []

        def take(request, context):
            requests.append(("grpc", request))
            return ExportTraceServiceResponse()

        server = grpc.server(futures.ThreadPoolExecutor(1))
        add_TraceServiceServicer_to_server(SimpleNamespace(Export=take), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
            fit(Telemetry(otlp_endpoint=f"http://127.0.0.1:{port}"))
            check_received(requests, only_run())
        finally:
            server.stop(0).wait()

    def test_a_failed_run_arrives_whole(self, collector):
        class Failing(Tiny):
            def validation_step(self, batch, batch_idx):
                raise ValueError("wires crossed")

        with pytest.raises(ValueError, match="wires crossed"):
            fit(Telemetry(otlp_endpoint=collector.url), model=Failing(), num_sanity_val_steps=0)
        check_received(collector.requests, only_run())
        last = received(collector.requests)[-1]
        assert (last.name, last.status.message) == ("fit", "wires crossed")
        assert last.events[0].name == "exception"

    @pytest.mark.parametrize("accepts", [False, True], ids=["refused", "silent"])
    def test_a_dead_collector_costs_its_deadline_and_is_counted(self, accepts, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "4")
        with socket.socket() as listener:
            port = free_port()
            if accepts:
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                port = listener.getsockname()[1]
            fit(Telemetry(otlp_endpoint=f"http://127.0.0.1:{port}"))
            run = only_run()
            dropped = run.metrics["telemetry_dropped_total"]
            tracing = {dict(key)["reason"]: n for key, n in dropped.items() if ("signal", "tracing") in key}
            assert sum(tracing.values()) == len(run.spans)
            assert tracing.keys() <= {"", "deadline", "collector_unreachable"}
            assert run.events[-1]["event"] == "training_completed"
        eventually(lambda: "liquid-telemetry-otlp" not in {thread.name for thread in threading.enumerate()})

    def test_where_a_trace_can_be_seen_is_told(self, collector):
        fit(Telemetry(otlp_endpoint=collector.url, trace_url="http://tempo/{trace_id}"), max_epochs=1)
        run = only_run()
        assert run.manifest["trace_url"] == f"http://tempo/{run.manifest['trace_id']}"

    def test_where_a_trace_can_be_seen_is_not_guessed(self, collector):
        fit(Telemetry(otlp_endpoint=collector.url), max_epochs=1)
        assert "trace_url" not in only_run().manifest

    @pytest.mark.parametrize(
        ("url", "page"),
        [
            ("http://localhost:4318", "http://localhost:16686/trace/{trace_id}"),
            ("http://[::1]:4317/", "http://localhost:16686/trace/{trace_id}"),
            ("http://collector:4318", None),
            ("http://localhost:4000", None),
            ("http://localhost:x", None),
        ],
    )
    def test_spans_sent_to_the_usual_port_are_seen_in_jaeger(self, url, page):
        assert find_page(None, Destination(url, "http/protobuf")) == page

    def test_a_missing_extra_is_told_with_the_line_to_run(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
        with pytest.raises(ValueError, match=r"pip install 'liquid-train\[otlp\]'"):
            Telemetry(otlp_endpoint="http://localhost:4318")
        Telemetry(otlp_endpoint="http://localhost:4318", enabled=False)

    @pytest.mark.faulty
    def test_a_missing_extra_that_only_the_environment_asks_for_does_not_stop_training(
        self, monkeypatch, caplog
    ):
        monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
        fit(Telemetry(), max_epochs=1)
        assert only_run().spans
        assert caplog.text.count("pip install 'liquid-train[otlp]'") == 1

    def test_an_unknown_protocol_is_told(self, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")
        with pytest.raises(ValueError, match="'carrier-pigeon': must be one of http/protobuf, grpc"):
            OpenTelemetrySpans(otlp_endpoint="http://localhost:4318")


def test_embedded_metrics_carry_the_exemplars():
    registry = CollectorRegistry()
    fit(Telemetry(registry=registry))
    text = generate_latest(registry).decode()
    assert samples(text)["training_batches_total"][("stage", "train"),] == 6
    assert any(span["spanId"] in text for span in only_run().spans_named("train batch"))
    assert not (only_run().spool / "runs").exists()
