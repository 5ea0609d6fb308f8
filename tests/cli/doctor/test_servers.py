"""`liquid-train doctor` at real servers, and at what looks like them."""

import json
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from impostors import serving, silence, talking
from pager import Inbox, alertmanager, shipped_prometheus
from servers import eventually, free_port

from liquid_train.doctor import rules

ROOT = Path(__file__).parents[3]


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


def test_a_prometheus_that_was_set_up_in_part(doctor, read, alone, prometheus, exporter):
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
    said = read("--prometheus", server.url)
    total = len(rules.shipped_rules())
    assert f"1 of {total} are not loaded: TrainingNotStarted" in said
    assert "1 are not as shipped: TrainingStalled" in said
    assert f"{exporter.url} is not among its targets" in said
    assert "is down" in found["prometheus", "target"]["seen"]
    assert found["prometheus", "alerts"]["status"] == "warning"
    assert found["prometheus", "exemplars"]["status"] == "ok"


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
