"""Sinks besides HTTP: a failure is seen to rise through each, also by a real Prometheus behind it."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from receiver import Receiver, pairs
from servers import eventually, node_exporter, pushgateway

from liquid_telemetry.exporter.sinks.identity import identity

__all__ = ["node_exporter", "pushgateway"]

FAILED = 'liquid_nn_training_jobs_failed_total{reason="exception"}'
RAISED = ("failed", "exception")
UNREACHABLE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, value in {"PUSH": 0.5, "SINK_HOLD": 2.5}.items():
        monkeypatch.setenv(f"LIQUID_TELEMETRY_{name}", str(value))


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def to_pushgateway(url):
    return {"sinks": [{"kind": "pushgateway", "to": url}]}


def to_textfile(folder):
    return {"sinks": [{"kind": "textfile", "to": str(folder)}]}


def to_otlp(url, **more):
    return {"sinks": [{"kind": "otlp", "to": f"{url}/v1/metrics", **more}]}


def rise(values):
    """Whether 0 came first, then 1, and nothing else ever."""
    assert values == sorted(values)
    assert set(values) <= {0, 1}
    return values[:1] == [0] and values[-1:] == [1]


def scraping(server):
    """Wait until Prometheus scrapes: it takes seconds to read its list of targets, a night's job does not."""
    eventually(lambda: server.query("up == 1"))
    return server


def errors(exporter, kind):
    return exporter.peek()["telemetry_errors_total"][("reason", kind), ("signal", "metrics")]


@pytest.mark.server("prometheus")
def test_pushgateway_shows_the_rise_and_is_left_clean(exporter, trainer, pushgateway, prometheus, wait):
    server = scraping(prometheus(targets=pushgateway.targets, honor_labels=True))
    trainer(**to_pushgateway(pushgateway.url)).end("failed", reason="exception")
    exporter.start()
    wait(lambda: _increase(server), timeout=40)
    wait(exporter.gone, timeout=40)
    ((series, values),) = server.samples(FAILED).items()
    assert rise(values)
    assert dict(series) == {"model_name": "CfC", "reason": "exception"}
    assert pushgateway.lines == [], "series of a group that nobody deletes stay for ever"


def _increase(server):
    return any(value > 0 for value in server.query(f"increase({FAILED}[10m])").values())


@pytest.mark.server("prometheus")
def test_textfile_shows_the_rise_and_is_removed(exporter, trainer, node_exporter, prometheus, wait, spool):
    folder = node_exporter.targets.parent / "textfile"
    server = scraping(prometheus(targets=node_exporter.targets))
    trainer(**to_textfile(folder)).end("failed", reason="exception")
    exporter.start()
    (path,) = wait(lambda: list(folder.glob("*.prom")))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    wait(lambda: _increase(server), timeout=40)
    wait(exporter.gone, timeout=40)
    ((series, values),) = server.samples(FAILED).items()
    assert rise(values)
    assert dict(series) == {"model_name": "CfC", "reason": "exception", "exporter": identity(spool)}
    assert list(folder.iterdir()) == []
    assert "node_textfile_scrape_error 0" in node_exporter.text


def test_otlp_shows_the_rise_and_ends_every_series(exporter, trainer, receiver, wait, labels):
    trainer(**to_otlp(receiver.url)).end("failed", reason="exception")
    exporter.start()
    wait(exporter.gone, timeout=40)
    series = labels(model_name="CfC", reason="exception")
    assert rise(receiver.values("training_jobs_failed_total", series))
    assert receiver.values("training_active", labels(model_name="CfC"))[-1] == 0
    assert {point.flags for name in receiver.metrics() for point in receiver.points(name).values()} == {1}


def test_otlp_says_it_all(exporter, trainer, receiver, wait, snapshot, labels, spool):
    details = {"headers": "api-key=a%20b", "attributes": "team=night,host.name=mine", "service": "nightly"}
    job = trainer(started=1_700_000_000.0, **to_otlp(receiver.url, **details))
    extra = (
        "# TYPE liquid_nn_training_epoch_duration_seconds histogram\n"
        'liquid_nn_training_epoch_duration_seconds_bucket{model_name="CfC",stage="train",le="1.0"} 2\n'
        'liquid_nn_training_epoch_duration_seconds_bucket{model_name="CfC",stage="train",le="5.0"} 5 '
        '# {trace_id="0123456789abcdef0123456789abcdef",span_id="0123456789abcdef"} 4.5 1700000000.5\n'
        'liquid_nn_training_epoch_duration_seconds_bucket{model_name="CfC",stage="train",le="+Inf"} 6\n'
        'liquid_nn_training_epoch_duration_seconds_count{model_name="CfC",stage="train"} 6\n'
        'liquid_nn_training_epoch_duration_seconds_sum{model_name="CfC",stage="train"} 25.5'
    )
    job.publish(snapshot(loss=0.5, step=10, extra=extra))
    exporter.start()
    wait(lambda: receiver.requests and receiver.points("training_loss"))
    (resource,) = receiver.requests[-1].resource_metrics
    said = dict(pairs(resource.resource.attributes))
    assert (said["service.name"], said["service.instance.id"], said["team"]) == (
        "nightly",
        identity(spool),
        "night",
    )
    assert said["host.name"] == "mine"
    assert receiver.headers[-1]["path"] == "/v1/metrics"
    assert receiver.headers[-1]["Content-Type"] == "application/x-protobuf"
    assert receiver.headers[-1]["Content-Encoding"] == "gzip"
    assert receiver.headers[-1]["api-key"] == "a b"

    metrics = receiver.metrics()
    assert metrics["training_loss"].gauge.data_points[0].as_double == 0.5
    batches = metrics["training_batches_total"]
    assert (batches.sum.is_monotonic, batches.sum.aggregation_temporality) == (True, 2)
    (point,) = batches.sum.data_points
    assert (point.as_double, point.start_time_unix_nano) == (10, 1_700_000_000 * 10**9)
    assert point.time_unix_nano > point.start_time_unix_nano
    epochs = metrics["training_epoch_duration_seconds"]
    assert (epochs.unit, epochs.histogram.aggregation_temporality) == ("s", 2)
    (point,) = epochs.histogram.data_points
    assert (list(point.explicit_bounds), list(point.bucket_counts)) == ([1.0, 5.0], [2, 3, 1])
    assert (point.count, point.sum) == (6, 25.5)
    (exemplar,) = point.exemplars
    assert (exemplar.as_double, exemplar.trace_id.hex()) == (4.5, "0123456789abcdef" * 2)
    born = receiver.points("training_jobs_started_total")[labels(model_name="CfC")].start_time_unix_nano
    assert born > 1_700_000_000 * 10**9, "the totals began with the spool"

    job.publish(snapshot(loss=0.25, step=20, epoch=1))
    ended, following = labels(model_name="CfC", epoch="0"), labels(model_name="CfC", epoch="1")
    wait(lambda: following in receiver.points("training_loss"))
    flags = [
        receiver.points("training_loss", at)[ended].flags
        for at in range(len(receiver.requests))
        if ended in receiver.points("training_loss", at)
    ]
    assert flags == [*[0] * (len(flags) - 1), 1]


def test_otlp_receiver_that_refuses_a_part_is_an_error(exporter, trainer, receiver, wait):
    refused = ExportMetricsPartialSuccess(rejected_data_points=7, error_message="too old")
    receiver.answer = 200, ExportMetricsServiceResponse(partial_success=refused).SerializeToString()
    trainer(**to_otlp(receiver.url))
    exporter.start()
    wait(lambda: errors(exporter, "otlp") >= 1)
    assert "7 data points were refused: too old" in (exporter.spool / "exporter.log").read_text()


@pytest.mark.slow
@pytest.mark.server("prometheus")
def test_three_exporters_do_not_overwrite_one_another(
    tmp_path, exporter, trainer, pushgateway, node_exporter, prometheus, wait, monkeypatch
):
    server = scraping(prometheus(targets=pushgateway.targets, honor_labels=True))
    folder = node_exporter.targets.parent / "textfile"
    nodes = scraping(prometheus(targets=node_exporter.targets))
    both = {"sinks": [*to_pushgateway(pushgateway.url)["sinks"], *to_textfile(folder)["sinks"]]}
    clients = []
    try:
        for number in range(3):
            spool = tmp_path / f"spool-{number}"
            spool.mkdir(mode=0o700)
            monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(spool))
            trainer(**both).end("failed", reason="exception")
            clients.append(type(exporter)(spool))
            clients[-1].start()
        for one, label in ((server, "instance"), (nodes, "exporter")):
            everyone = {identity(client.spool) for client in clients}
            wait(lambda: _risen(one, label) == everyone, timeout=60)  # noqa: B023
        wait(lambda: all(client.gone() for client in clients), timeout=60)
    finally:
        for client in clients:
            client.close()


def _risen(server, label):
    """The exporters of which a failure was seen to rise."""
    rows = server.get("/api/v1/query", query=f"count by ({label}) (increase({FAILED}[10m]) > 0)")["result"]
    return {row["metric"][label] for row in rows}


@pytest.mark.slow
def test_restarted_exporter_goes_on_under_its_name(exporter, trainer, pushgateway, wait):
    """The sink never falls back from 1 to 0, which Prometheus would take for a second failure."""
    job = trainer(**to_pushgateway(pushgateway.url))
    exporter.start()
    wait(lambda: any("jobs_started_total" in line and line.endswith(" 1") for line in pushgateway.lines))
    instances = {line.split('instance="')[1].split('"')[0] for line in pushgateway.lines}
    exporter.kill()
    exporter.start()
    before = _pushed_at(pushgateway)
    seen = []

    def pushed_again():
        seen.append(next(line for line in pushgateway.lines if "jobs_started_total" in line)[-1])
        return _pushed_at(pushgateway) > before

    wait(pushed_again)
    assert set(seen) == {"1"}
    assert {line.split('instance="')[1].split('"')[0] for line in pushgateway.lines} == instances
    job.end("completed")
    wait(exporter.gone, timeout=40)


def _pushed_at(gateway):
    (line,) = (line for line in gateway.text.splitlines() if line.startswith("push_time_seconds"))
    return float(line.split()[-1])


@pytest.mark.slow
def test_live_exporter_learns_of_a_sink_and_forgets_it(exporter, trainer, tmp_path, wait):
    stays = trainer(model_name="LTC")
    exporter.start()
    job = trainer(**to_textfile(tmp_path / "sink"))
    wait(lambda: errors(exporter, "textfile") >= 1, timeout=10)
    (tmp_path / "sink").mkdir()
    (path,) = wait(lambda: list((tmp_path / "sink").glob("*.prom")))
    job.end("completed")
    wait(lambda: not path.exists(), timeout=40)
    assert exporter.json("/ready")[0] == 200
    stays.end("completed")


def test_scraped_exporter_waits_for_both(exporter, trainer, tmp_path, wait):
    """The end goes when two scrapes and two deliveries have it."""
    (tmp_path / "sink").mkdir()
    job = trainer(**to_textfile(tmp_path / "sink"))
    exporter.start()
    exporter.scrape()
    job.end("failed", reason="exception")
    seen = []

    def scraped():
        with contextlib.suppress(OSError, AttributeError):
            seen.append(exporter.jobs("failed", "CfC", "exception"))
        return exporter.gone()

    wait(scraped, timeout=40)
    assert seen[-1] == 1
    assert list((tmp_path / "sink").iterdir()) == []


def test_unreachable_sink_is_counted_and_holds_up_nothing(exporter, trainer, wait, spool, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_LEAVE", "1")
    job = trainer(**to_pushgateway(UNREACHABLE.replace("://", "://user:secret@")))
    exporter.start()
    wait(lambda: errors(exporter, "pushgateway") >= 2)
    assert exporter.scrape()["training_active"]
    job.kill()
    wait(exporter.gone)
    log = (spool / "exporter.log").read_text()
    assert log.count("WARNING pushgateway:") == 1
    assert "secret" not in log


def test_sink_that_never_answers_does_not_delay_a_scrape(exporter, trainer, wait, labels):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        trainer(**to_otlp(f"http://127.0.0.1:{deaf.getsockname()[1]}"))
        exporter.start()
        deaf.settimeout(10)
        connection, _ = deaf.accept()
        with connection:
            for _ in range(3):
                assert exporter.scrape()["training_active"] == {labels(model_name="CfC"): 1}
            assert errors(exporter, "otlp") == 0, "it is still being waited for"


@pytest.mark.slow
def test_receiver_that_comes_up_late_still_sees_the_rise(exporter, trainer, receiver, wait, labels):
    receiver.answer = 503, b"not yet"
    trainer(**to_otlp(receiver.url)).end("failed", reason="exception")
    exporter.start()
    wait(lambda: errors(exporter, "otlp") >= 1)
    receiver.answer = 200, b""
    wait(exporter.gone, timeout=60)
    assert rise(receiver.values("training_jobs_failed_total", labels(model_name="CfC", reason="exception")))


def test_sigterm_leaves_a_living_runs_group(exporter, trainer, pushgateway, wait, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_LINGER", "0")
    trainer(**to_pushgateway(pushgateway.url))
    address = exporter.start()
    wait(lambda: pushgateway.lines)
    os.kill(address.pid, signal.SIGTERM)
    wait(exporter.gone)
    assert pushgateway.lines


def test_exporters_own_option(exporter, trainer, tmp_path, wait, spool):
    (tmp_path / "sink").mkdir()
    options = ["--port", "0", "--stay", "--textfile", str(tmp_path / "sink"), "--push", "0.2"]
    process = subprocess.Popen([sys.executable, "-m", "liquid_telemetry.exporter", *options])
    try:
        wait(lambda: list((tmp_path / "sink").glob("liquid_telemetry_*.prom")))
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert list((tmp_path / "sink").iterdir()) == []


def test_more_sinks_than_there_is_room_for(exporter, trainer, tmp_path, wait, labels):
    sinks = [{"kind": "textfile", "to": str(tmp_path / str(number))} for number in range(12)]
    odd = [
        {"kind": "carrier pigeon", "to": "x"},
        {"to": "x"},
        "x",
        {"kind": [], "to": "x"},
        {"kind": "otlp", "to": 3},
    ]
    trainer(sinks=[*odd, *sinks])
    exporter.start()
    dropped = labels(signal="exporter", reason="sinks")
    wait(lambda: exporter.peek()["telemetry_dropped_total"][dropped] == 4)
    trainer(model_name="LTC", sinks="nonsense")
    assert exporter.scrape()["telemetry_errors_total"][labels(signal="exporter", reason="internal")] == 0
