"""The endpoints, and clients that are slow, idle, oversized or malformed."""

import base64
import hashlib
import json
import re
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from liquid_telemetry.exporter import host


def test_live_and_ready(exporter, trainer):
    job = trainer(status="starting")
    exporter.start()
    assert exporter.json("/live") == (200, {"status": "alive"})
    assert exporter.json("/ready") == (503, {"status": "not ready"})
    job.update(status="running")
    assert exporter.json("/ready") == (200, {"status": "ready"})
    job.end("completed")
    assert exporter.json("/ready") == (503, {"status": "not ready"})


def test_only_training_makes_it_ready(exporter, trainer):
    trainer(job=False, stage="validation")
    exporter.start()
    assert exporter.json("/ready")[0] == 503


def test_healthy(exporter, trainer, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_CRITICAL", "100")
    trainer()
    exporter.start()
    status, report = exporter.json("/health")
    assert status == 200
    assert report["status"] == "healthy"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", report["timestamp"])
    assert report["uptime"] >= 0
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", report["version"])
    assert report["run"] == "run-1"
    assert report["components"] == {
        "training": {"status": "healthy", "state": "running"},
        "metrics": {"status": "healthy"},
        "tracing": {"status": "healthy"},
        "logging": {"status": "healthy"},
    }
    assert "reason" not in report
    disk = psutil.disk_usage("/tmp")
    assert report["resources"].keys() == {
        "memory_usage_percent", "memory_available_gb", "disk_usage_percent", "disk_free_gb", "cpu_usage_percent",
    }  # fmt: skip
    assert report["resources"]["disk_usage_percent"] == pytest.approx(disk.percent, abs=1)
    assert report["resources"]["disk_free_gb"] == pytest.approx(disk.free / 1e9, rel=0.05)
    memory = psutil.virtual_memory()
    assert report["resources"]["memory_available_gb"] == pytest.approx(memory.available / 1e9, rel=0.2)


@pytest.mark.parametrize(
    ("signal", "component"), [("logs", "logging"), ("tracing", "tracing"), ("x", "metrics")]
)
def test_component_with_errors_is_degraded(exporter, trainer, snapshot, signal, component, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_CRITICAL", "100")
    job = trainer()
    job.publish(snapshot(errors={signal: 0}))
    exporter.start()
    assert exporter.json("/health")[0] == 200
    job.publish(snapshot(errors={signal: 1}))
    status, report = exporter.json("/health")
    assert (status, report["status"]) == (503, "degraded")
    assert report["components"][component] == {"status": "degraded", "reason": "errors in the last minutes"}
    assert report["reason"] == f"{component}: errors in the last minutes"


def test_errors_are_forgiven(exporter, trainer, snapshot, wait, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_CRITICAL", "100")
    monkeypatch.setenv("LIQUID_TELEMETRY_RECENT", "0.5")
    trainer().publish(snapshot(errors={"logs": 1}))
    exporter.start()
    wait(lambda: exporter.json("/health")[0] == 200)


def test_stale_metrics_are_degraded(exporter, trainer, snapshot, wait, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_CRITICAL", "100")
    monkeypatch.setenv("LIQUID_TELEMETRY_STALE", "0.5")
    job = trainer()
    job.publish(snapshot())
    exporter.start()
    report = wait(lambda: (answer := exporter.json("/health"))[0] == 503 and answer[1])
    assert report["components"]["metrics"]["status"] == "degraded"
    assert re.fullmatch(r"metrics: no new values for \d+ s", report["reason"])


def test_the_fuller_disk_counts(exporter, trainer, tmp_path, monkeypatch):
    """That of the spool may be another than that of the runs."""
    usage = {str(tmp_path): 30.0}
    monkeypatch.setattr(
        host.psutil, "disk_usage", lambda path: SimpleNamespace(percent=usage.get(path, 99.5), free=1)
    )
    for disks in ([tmp_path, Path("/")], [Path("/"), tmp_path]):
        sample = host._look(frozenset(), disks, host.Gpus(), True)
        assert sample.disk_percent == 99.5


def test_full_disk_or_memory_is_critical(exporter, trainer, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_CRITICAL", "0")
    trainer()
    exporter.start()
    status, report = exporter.json("/health")
    assert (status, report["status"]) == (503, "critical")
    assert re.fullmatch(r"memory is [\d.]+ % used; disk is [\d.]+ % used", report["reason"])


def test_health_of_the_worst_run_or_of_one(exporter, trainer, snapshot, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_CRITICAL", "100")
    trainer(run_id="good")
    trainer(run_id="bad", model_name="LTC").publish(snapshot(model="LTC", errors={"logs": 1}))
    dead = trainer(run_id="dead", model_name="GRU")
    exporter.start()
    dead.kill()
    assert exporter.json("/health")[1]["run"] == "bad"
    assert exporter.json("/health?run=good")[0] == 200
    status, report = exporter.json("/health?run=dead")
    assert (status, report["reason"]) == (503, "training: failed (killed): killed by signal 9 (SIGKILL)")
    assert exporter.json("/health?run=none") == (404, {"error": "no such run"})


def test_nobody_trains(exporter, trainer, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_CRITICAL", "100")
    trainer().end("completed")
    exporter.start()
    status, report = exporter.json("/health")
    assert (status, report["run"]) == (200, None)
    assert report["components"]["training"] == {"status": "healthy", "state": "idle"}


def test_other_paths_and_methods(exporter, trainer):
    trainer()
    exporter.start()
    status, headers, body = exporter.get("/metricsx")
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert json.loads(body) == {
        "error": "no such path; there are /, /api/runs, /api/runs/{run_id}, /health, /live, /metrics, /ready"
    }
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        status, headers, _ = exporter.get("/metrics", method=method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, headers, body = exporter.get("/live", method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, "20", "")


def test_head_does_not_count_as_a_scrape(exporter, trainer, wait):
    trainer().kill()
    exporter.start()
    for _ in range(3):
        exporter.get("/metrics", method="HEAD", headers={"X-Prometheus-Scrape-Timeout-Seconds": "1"})
    wait(lambda: exporter.counters["totals"]["CfC"]["failed/unknown"] == [1, 0])
    assert exporter.jobs("failed", "CfC", "unknown") == 0


def test_page_allows_its_own_style_script_and_data_and_nothing_else(exporter, trainer):
    trainer(model_name="<script>")
    exporter.start()
    status, headers, body = exporter.get("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    none = ("default-src", "base-uri", "form-action", "frame-ancestors")
    assert {policy.pop(name) for name in none} == {"'none'"}
    for name in ("style", "script"):
        (inline,) = re.findall(f"<{name}>(.*?)</{name}>", body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy.pop(f"{name}-src") == f"'sha256-{digest}'"
    assert policy == {"connect-src": "'self'", "img-src": "data:"}
    assert len(body.encode()) < 200_000
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", body)


def test_runs_in_few_words(exporter, trainer, snapshot):
    job = trainer(model_name="<script>", run_id="one")
    job.publish(snapshot(model="M", loss=0.25, step=2, epoch=7))
    trainer(model_name="B", run_id="two").end("completed")
    exporter.start()
    status, answer = exporter.json("/api/runs")
    assert status == 200
    assert answer["source"] == "exporter"
    assert [(run["run_id"], run["model"], run["state"], run["live"]) for run in answer["runs"]] == [
        ("one", "<script>", "running", True),
        ("two", "B", "completed", False),
    ]
    assert [answer["runs"][0][name] for name in ("loss", "step", "val_loss")] == [0.25, 2, None]
    job.kill()
    one = next(run for run in exporter.json("/api/runs")[1]["runs"] if run["run_id"] == "one")
    assert (one["state"], one["reason"], one["live"]) == ("failed", "killed", False)
    assert one["end"] == "killed by signal 9 (SIGKILL)"


def test_course_of_a_run_from_what_is_known_of_it(exporter, trainer, snapshot, wait):
    job = trainer(model_name="M", run_id="one")
    job.publish(snapshot(loss=0.5, step=1))
    exporter.start()
    path = "/api/runs/one"
    wait(lambda: exporter.json(path)[1]["points"]["columns"]["loss"][-1:] == [0.5])
    whole = exporter.json(path)[1]
    assert (whole["points"]["anew"], whole["epochs"], whole["events"]) == (True, None, None)
    kept = whole["points"]["kept"]
    job.publish(snapshot(loss=0.25, step=2))
    known = f"{path}?version={whole['points']['version']}&since={kept}"
    wait(lambda: exporter.json(known)[1]["points"]["columns"]["step"][-1:] == [2])
    new = exporter.json(known)[1]["points"]
    assert not new["anew"]
    assert all(time > kept for time in new["columns"]["time"])
    assert exporter.json("/api/runs/none") == (404, {"error": "no such run"})
    assert exporter.json(f"{path}?since=x&version=nan&epochs=-3&events=1e99")[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /live\r\n\r\n",
        b"GET /live HTTP/3.0\r\n\r\n",
        b"GET http://evil/live HTTP/1.1\r\n\r\n",
        b"GET /live HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /live HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET /live HTTP/1.1\r\nX: a\nSet-Cookie: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /live HTTP/1.1\r\n" + b"X: y\r\n" * 4_000 + b"\r\n",
    ],
    ids=["empty", "method", "0.9", "3.0", "proxy", "colon", "folded", "newline", "TLS", "long", "many"],
)
def test_malformed_requests_get_400(exporter, trainer, request_bytes):
    trainer()
    exporter.start()
    answer = _exchange(exporter, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close" in answer
    assert exporter.get("/live")[0] == 200


def _connect(exporter):
    return socket.create_connection((exporter.address.host, exporter.address.port), timeout=10)


def _exchange(exporter, data):
    with _connect(exporter) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while part := connection.recv(65_536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


def test_several_requests_on_one_connection(exporter, trainer):
    trainer()
    exporter.start()
    request = b"GET /live HTTP/1.1\r\n\r\n"
    answer = _exchange(exporter, request + request + b"GET /live HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"Connection: keep-alive") == 2


def test_a_body_is_not_taken_for_a_request(exporter, trainer):
    trainer()
    exporter.start()
    smuggled = b"GET /metrics HTTP/1.1\r\n\r\n"
    head = b"GET /live HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    assert _exchange(exporter, head + smuggled).count(b"HTTP/1.1") == 1


def test_hundreds_of_slow_clients_do_not_starve_a_scrape(exporter, trainer, labels):
    trainer()
    process = psutil.Process(exporter.start().pid)
    exporter.scrape()
    before = process.memory_info().rss
    clients = [_connect(exporter) for _ in range(400)]
    try:
        for client in clients:
            with_slow_start = b"GET /metrics HTTP/1.1\r\nX-Slow: "
            try:
                client.sendall(with_slow_start)
            except OSError:  # it had to make room
                continue
        started = time.monotonic()
        for _ in range(5):
            assert exporter.scrape()["training_active"] == {labels(model_name="CfC"): 1}
        assert time.monotonic() - started < 5
        assert process.num_fds() < 100
        assert process.num_threads() <= 8
        assert process.memory_info().rss - before < 20e6
    finally:
        for client in clients:
            client.close()


def test_a_client_that_never_reads_does_not_block_the_others(exporter, trainer, snapshot):
    trainer().publish(snapshot())
    exporter.start()
    with _connect(exporter) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 500)
        assert exporter.scrape()["training_loss"]
