"""`liquid-train doctor`: what it finds on real servers, and on broken ones."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE

import pytest
from pager import Inbox, alertmanager, shipped_prometheus
from servers import eventually, free_port, prometheus

from liquid_telemetry.spool import RunRecord, is_locked, start_exporter, wait_exporter
from liquid_train.__main__ import main
from liquid_train.doctor import machine, rules, web
from liquid_train.doctor.examine import DEFAULTS

__all__ = ["prometheus"]

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "tests" / "exporter" / "fake_trainer.py"
VARIABLES = (
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "GRAFANA_TOKEN",
)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A spool of one's own, and nothing at the usual addresses."""
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for name in DEFAULTS:
        monkeypatch.setitem(DEFAULTS, name, f"http://127.0.0.1:{free_port()}")
    return tmp_path


@pytest.fixture
def doctor(capsys):
    """Ask it; returns the exit code and the findings by area and check."""

    def ask(*options):
        code = main(["doctor", "--json", *options])
        said = json.loads(capsys.readouterr().out)
        statuses = [found["status"] for found in said["findings"]]
        assert said["problems"] == statuses.count("problem")
        assert said["warnings"] == statuses.count("warning")
        return code, {(found["area"], found["check"]): found for found in said["findings"]}

    return ask


@contextmanager
def serving(answers):
    """A server that answers each path with ``(status, body)`` or a function of the request that returns it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length", 0))
            self.sent = self.rfile.read(length)
            answer = answers.get(self.path.partition("?")[0], (404, b"{}"))
            status, body = answer(self) if callable(answer) else answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def talking(talk):
    """A server that hands each connection to ``talk``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve():
            while not ended.is_set():
                connection, _ = listener.accept()
                with connection:
                    talk(connection, ended)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        ended.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()


def garbage(connection, _):
    connection.recv(1000)
    connection.sendall(b"220 mail.example.org ESMTP\r\n")


def tls(connection, _):
    connection.recv(1000)
    connection.sendall(b"\x15\x03\x03\x00\x02\x02\x46")  # the alert "protocol version"


def silence(connection, ended):
    connection.settimeout(0.05)
    while not ended.is_set():
        try:
            if not connection.recv(1000):
                return
        except OSError:
            continue


def drip(connection, ended):
    """One byte after another, each well within a timeout per byte; in the end an answer."""
    connection.recv(1000)
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(40):
            connection.sendall(b"x")
            ended.wait(0.05)
        connection.sendall(b"\r\n\r\n{}")
    except OSError:
        return


def test_a_machine_without_anything_is_well(doctor, alone):
    code, found = doctor()
    assert code == 0
    assert {status for one in found.values() if (status := one["status"]) == "problem"} == set()
    for area, check in [
        ("prometheus", "address"),
        ("alertmanager", "address"),
        ("grafana", "address"),
        ("otlp", "traces"),
        ("exporter", "process"),
    ]:
        assert found[area, check]["status"] == "not there"
    assert found["machine", "versions"]["status"] == "ok"
    assert found["spool", "directory"]["seen"].startswith(f"{alone}/spool, mode 700")
    assert found["spool", "locks"]["status"] == "ok"
    assert {path.name for path in (alone / "spool").iterdir()} == set()


def test_what_is_named_has_to_be_there(doctor):
    urls = {name: f"http://127.0.0.1:{free_port()}" for name in DEFAULTS}
    code, found = doctor(*(word for name, url in urls.items() for word in (f"--{name}", url)))
    assert code == 1
    for (area, _), one in found.items():
        if area in urls:
            assert (one["status"], one["seen"]) == ("problem", f"{urls[area]}: nothing listens there")
            assert f"--{area} URL" in one["todo"]


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (garbage, "its answer is no HTTP; if it speaks TLS, the URL has to begin with https://"),
        (tls, "its answer is no HTTP; if it speaks TLS, the URL has to begin with https://"),
        (silence, "no answer within 0.3 s"),
        (drip, "no answer within 0.3 s"),
    ],
)
def test_servers_that_are_none_of_these(talk, said, doctor, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT", 0.3)
    with talking(talk) as url:
        code, found = doctor(*(word for name in DEFAULTS for word in (f"--{name}", url)))
    assert code == 1
    assert {one["seen"] for (area, _), one in found.items() if area in DEFAULTS} == {f"{url}: {said}"}


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b"{}", b'{"status": "success"}', b"null"])
@pytest.mark.parametrize("status", [200, 500])
def test_servers_that_answer_something_else(status, body, doctor):
    paths = [
        "/api/v1/status/buildinfo",
        "/api/v2/status",
        "/api/health",
    ]
    with serving(dict.fromkeys(paths, (status, body))) as url:
        code, found = doctor(*(word for name in DEFAULTS for word in (f"--{name}", url)))
        assert code == 1
        for area in DEFAULTS:
            one = next(one for (where, _), one in found.items() if where == area)
            assert one["status"] == "problem", area
            assert one["seen"].startswith(url), area
        DEFAULTS.update(dict.fromkeys(DEFAULTS, url))
        code, found = doctor()
    assert code == 0
    told = {one["status"] for (area, check), one in found.items() if area in DEFAULTS and check != "clock"}
    assert told == {"warning"}


def test_tls_where_none_is_spoken(doctor):
    with serving({}) as url:
        secure = url.replace("http:", "https:")
        code, found = doctor("--prometheus", secure)
    assert code == 1
    assert found["prometheus", "address"]["seen"] == (
        f"{secure}: does not speak TLS; the URL may have to begin with http://"
    )


@pytest.fixture
def exporter(alone, monkeypatch):
    """The exporter of this spool, at a free port, with a live run."""
    monkeypatch.setenv("LIQUID_TELEMETRY_LINGER", "0")
    spool = alone / "spool"
    spool.mkdir(mode=0o700)
    record = {"run_id": "r1", "model_name": "M", "status": "running"}
    trainer = subprocess.Popen(
        [sys.executable, TRAINER, json.dumps(record)], stdin=PIPE, stdout=PIPE, text=True
    )
    try:
        assert trainer.stdout.readline()
        start_exporter(spool, port=0)
        address = wait_exporter(spool, timeout=20)
        yield address
        os.kill(address.pid, signal.SIGTERM)
        eventually(lambda: not is_locked(spool / "exporter.lock"))
    finally:
        trainer.kill()
        trainer.communicate()


def test_a_whole_stack(doctor, alone, exporter):
    inbox = Inbox()
    try:
        with (
            alertmanager(alone / "alertmanager", inbox) as alerts,
            shipped_prometheus(alone / "prometheus", exporter.port, alerts) as server,
        ):
            code, found = doctor(
                "--prometheus", server.url, "--alertmanager", alerts.url, "--test-alert=critical"
            )
            assert code == 0, found
            assert {one["check"] for (area, _), one in found.items() if area == "prometheus"} == {
                *("address", "clock", "ready", "target", "rules", "exemplars", "alerts")
            }
            for (area, check), one in found.items():
                if area in ("prometheus", "alertmanager", "exporter", "spool"):
                    assert one["status"] == "ok", (check, one)
            assert found["spool", "runs"]["seen"] == "1 process of live runs"
            assert found["exporter", "address"]["seen"] == f"{exporter.url} answers (pid {exporter.pid})"
            assert found["prometheus", "target"]["seen"].startswith(f"{exporter.url}/metrics is up, scraped ")
            total = len(rules.shipped_rules())
            assert found["prometheus", "rules"]["seen"] == f"all {total} are loaded, as shipped"
            assert "goes to the receiver critical" in found["alertmanager", "test alert"]["seen"]
            _, told = inbox.get("/pager")
            (alert,) = told["alerts"]
            assert alert["labels"]["alertname"] == "LiquidTrainTestAlert"
            assert alert["labels"]["severity"] == "critical"
            (pending,) = alerts.alerts()
            lasts = _seconds(pending["endsAt"]) - _seconds(pending["startsAt"])
            assert lasts == 120
    finally:
        inbox.close()


def _seconds(text):
    return time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


def test_a_prometheus_that_was_set_up_in_part(doctor, alone, prometheus, exporter):
    changed = (ROOT / "monitoring/prometheus/alerts.yml").read_text()
    for old, new in [
        ("vector(8e9)", "vector(9e9)"),
        ('{state="stalled"} == 1', '{state="stalled"} >= 1'),
        ("alert: TrainingNotStarted", "alert: NotStarted"),
    ]:
        assert old in changed
        changed = changed.replace(old, new)
    path = alone / "alerts.yml"
    path.write_text(changed)
    nobody = alone / "none.json"
    nobody.write_text(json.dumps([{"targets": [f"127.0.0.1:{free_port()}"], "labels": {}}]))
    server = prometheus(targets=nobody, rules=path)
    eventually(lambda: [one["health"] for one in server.get("/api/v1/targets")["activeTargets"]] == ["down"])
    code, found = doctor("--prometheus", server.url)
    assert code == 1
    said = main_text("--prometheus", server.url)
    total = len(rules.shipped_rules())
    assert f"1 of {total} are not loaded: TrainingNotStarted" in said
    assert "1 are not as shipped: TrainingStalled" in said
    assert f"{exporter.url} is not among its targets" in said
    assert "is down" in found["prometheus", "target"]["seen"]
    assert found["prometheus", "alerts"]["status"] == "warning"
    assert found["prometheus", "exemplars"]["status"] == "ok"


def main_text(*options):
    """What a person sees, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "liquid_train", "doctor", *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "callbacks")])},
    )
    assert done.stderr == ""
    return done.stdout


def test_thresholds_are_the_users(doctor, alone, prometheus):
    text = (ROOT / "monitoring/prometheus/alerts.yml").read_text().replace("vector(8e9)", "vector(9e9)")
    (alone / "alerts.yml").write_text(text)
    (alone / "targets.json").write_text("[]")
    server = prometheus(targets=alone / "targets.json", rules=alone / "alerts.yml")
    _, found = doctor("--prometheus", server.url)
    assert found["prometheus", "rules"]["seen"].endswith("as shipped; thresholds of yours: memory_bytes")
    assert found["prometheus", "rules"]["status"] == "ok"
    assert found["prometheus", "target"]["seen"] == "it scrapes no job liquid-train"


def test_the_rules_are_those_that_are_shipped():
    path = ROOT / "liquid_train" / "doctor" / "alerts.yml"
    assert path.read_text() == (ROOT / "monitoring/prometheus/alerts.yml").read_text()


GRAFANA = {"/api/health": (200, {"database": "ok", "version": "13.2.3"})}
SOURCE = "/api/datasources/uid/{}/health"


def test_grafana(doctor, monkeypatch):
    def login(request):
        right = request.headers.get("Authorization") in ("Basic YWRtaW46cEB3", "Bearer t0ken")
        return (200, {"status": "OK", "message": "queried"}) if right else (401, {"message": "Unauthorized"})

    answers = {**GRAFANA, **{SOURCE.format(name): login for name in ("prometheus", "loki")}}
    with serving(answers) as url:
        code, found = doctor("--grafana", url)
        assert (code, found["grafana", "data sources"]["status"]) == (0, "warning")
        code, found = doctor("--grafana", url.replace("://", "://admin:p%40w@"))
        assert code == 0
        assert found["grafana", "address"]["seen"] == f"{url} is Grafana 13.2.3"
        assert found["grafana", "data source prometheus"]["status"] == "ok"
        assert found["grafana", "data source jaeger"]["status"] == "warning"
        monkeypatch.setenv("GRAFANA_TOKEN", "t0ken")
        assert doctor("--grafana", url)[1]["grafana", "data source loki"]["status"] == "ok"
        answers[SOURCE.format("prometheus")] = 400, {"status": "ERROR", "message": "connection refused"}
        code, found = doctor("--grafana", url)
        assert code == 1
        assert found["grafana", "data source prometheus"]["seen"] == "HTTP 400: connection refused"


def test_an_empty_export(doctor, monkeypatch):
    got = []

    def take(request):
        got.append((json.loads(request.sent), request.headers.get("x-key")))
        return 200, b"{}"

    with serving({"/v1/traces": take}) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b")
        assert doctor("--otlp", url)[1]["otlp", "traces"]["status"] == "ok"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        assert doctor()[1]["otlp", "traces"]["seen"] == f"{url} takes an empty export over HTTP"
    assert got == [({"resourceSpans": []}, "a b")] * 2
    code, found = doctor()  # what a variable names has to be there
    assert (code, found["otlp", "traces"]["seen"]) == (1, f"{url}: nothing listens there")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")
    assert doctor()[1]["otlp", "traces"]["seen"] == "'localhost:4318' is no URL"


def test_a_collector_over_grpc_is_connected_to(doctor, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with talking(silence) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url.removeprefix("http://"))
        code, found = doctor()
    assert (code, found["otlp", "traces"]["status"]) == (0, "ok")
    assert found["otlp", "traces"]["seen"].endswith("whether it takes gRPC was not tried")
    assert doctor()[0] == 1


@pytest.mark.parametrize(("ahead", "status"), [(0, "ok"), (20, "warning"), (-3600, "problem")])
def test_clocks(ahead, status, doctor, monkeypatch):
    monkeypatch.setattr(
        BaseHTTPRequestHandler,
        "date_time_string",
        lambda *_: time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + ahead)),
    )
    with serving({"/v1/traces": (200, b"{}")}) as url:
        found = doctor("--otlp", url)[1]
    assert found["otlp", "clock"]["status"] == status
    if ahead:
        seconds, rest = found["otlp", "clock"]["seen"].split(" ", 1)
        assert abs(int(seconds) - abs(ahead)) <= 1
        assert rest == ("s ahead of this host's" if ahead > 0 else "s behind this host's")


def test_a_spool_that_others_can_write_to(doctor, alone):
    spool = alone / "spool"
    spool.mkdir()
    spool.chmod(0o777)
    code, found = doctor()
    assert code == 1
    assert "is writable by others" in found["spool", "directory"]["seen"]
    assert "LIQUID_TELEMETRY_SPOOL" in found["spool", "directory"]["todo"]


def test_what_dead_runs_leave(doctor, alone):
    spool = alone / "spool"
    (spool / "runs" / "r1").mkdir(parents=True)
    spool.chmod(0o700)
    (spool / "runs" / "r1" / "0.json").write_bytes(RunRecord("r1", "M", status="running").to_json())
    (spool / "runs" / "r1" / "1.json").write_bytes(RunRecord("r1", "M", rank=1, status="completed").to_json())
    (spool / "runs" / "r1" / "2.json").write_text("{")
    code, found = doctor()
    assert code == 0
    assert found["spool", "runs"]["status"] == "warning"
    assert "1 died and are not counted yet: r1 rank 0" in found["spool", "runs"]["seen"]
    assert "1 damaged" in found["spool", "records"]["seen"]


def test_an_exporter_that_hangs(doctor, alone, exporter, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT", 0.3)
    os.kill(exporter.pid, signal.SIGSTOP)
    try:
        code, found = doctor()
    finally:
        os.kill(exporter.pid, signal.SIGCONT)
    assert code == 1
    assert (
        found["exporter", "address"]["seen"] == f"{exporter.url} (pid {exporter.pid}): no answer within 0.3 s"
    )
    assert found["exporter", "address"]["todo"].startswith(f"kill {exporter.pid} ")


def test_who_has_the_port(doctor, monkeypatch):
    from liquid_train.doctor import exporter

    check = exporter.check_port
    with serving({}) as url:
        monkeypatch.setattr(exporter, "check_port", lambda: check(url))
        found = doctor()[1]["exporter", "port"]
    assert "is taken by another program" in found["seen"]
    with serving({"/live": (200, {"status": "alive"})}) as url:
        found = doctor()[1]["exporter", "port"]
    assert "is taken by the exporter of another spool or user" in found["seen"]
    assert "is free" in doctor()[1]["exporter", "port"]["seen"]


def test_versions(monkeypatch):
    def version(package):
        return {"torch": "2.0.1", "lightning": None}.get(package, "99")

    monkeypatch.setattr(machine, "_version", version)
    (found,) = machine.check_versions()
    assert found.status == "problem"
    assert "torch 2.0.1, needs >=2.4" in found.seen
    assert "lightning is missing" in found.seen


@pytest.mark.parametrize(("free", "status"), [(0.1, "problem"), (0.9, "warning"), (5, "warning"), (50, "ok")])
def test_disks(free, status, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": free * 1e9, "total": 100e9})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    (found,) = machine.check_disks({"runs": tmp_path / "runs", "the spool": tmp_path})
    assert found.status == status
    assert "for runs and the spool" in found.seen


def test_a_check_that_fails_is_a_finding(doctor, monkeypatch):
    monkeypatch.setattr("liquid_train.doctor.examine.check_machine", lambda _: 1 / 0)
    code, found = doctor()
    assert code == 1
    assert "ZeroDivisionError" in found["machine", "check"]["seen"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prometheus", "localhost:9090"], "'localhost:9090' must be a URL as http://HOST:PORT"),
        (["--grafana", "ftp://u:secret@h"], "'h' must be a URL"),
        (["--test-alert", "loud"], "invalid choice: 'loud'"),
        (["--all"], "unrecognized arguments: --all"),
    ],
)
def test_mistakes_are_one_line(options, said, capsys):
    assert main(["doctor", *options]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "secret" not in error


def test_what_a_person_reads():
    said = main_text("--alertmanager", "http://127.0.0.1:1")
    assert (
        "  problem    address: http://127.0.0.1:1: nothing listens there\n             → make stack" in said
    )
    assert said.endswith(("warnings\n", "warning\n"))
    assert "1 problem, " in said
