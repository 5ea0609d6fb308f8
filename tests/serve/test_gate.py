"""Before the endpoints: token, numbers, times; and what every call leaves in the metrics."""

import contextlib
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from servers import eventually
from serving import asked, serving
from tiny import LIGHTNING_NOISE, read_spans
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

pytestmark = [pytest.mark.filterwarnings(noise) for noise in LIGHTNING_NOISE]
ONE = asked([[[0.5]]])
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def calls(served):
    """Counted calls, as ``(endpoint, method, status): number``."""
    text = served.client.get("/metrics").text
    found = re.findall(r'api_calls_total\{endpoint="(.*?)",method="(.*?)",status="(\d+)"\} (\d+)', text)
    return {(endpoint, method, int(status)): int(number) for endpoint, method, status, number in found}


def test_a_token_guards_what_answers(classifier):
    with serving(classifier, token="s3cret") as served:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
            refused = served.client.post("/predict", json=ONE, headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert served.client.get("/model").status_code == 401
        assert served.client.get("/openapi.json").status_code == 401
        with pytest.raises(InvalidStatus, match="401"), connect(served.url.replace("http", "ws") + "/stream"):
            pass
        known = {"authorization": "bearer s3cret"}
        assert served.client.post("/predict", json=ONE, headers=known).status_code == 200
        assert served.client.get("/openapi.json", headers=known).json()["components"]["securitySchemes"]
        with connect(served.url.replace("http", "ws") + "/stream", additional_headers=known) as stream:
            stream.send('{"values": [1]}')
            assert '"step":0' in stream.recv(timeout=20)
        for open_to_all in ("/live", "/ready", "/metrics"):
            assert served.client.get(open_to_all).status_code == 200
        counted = calls(served)
    assert counted["/predict", "POST", 401] == 3
    assert counted["/stream", "GET", 401] == 1
    assert counted["/stream", "GET", 101] == 1


def test_small_answers_do_not_wait_for_acknowledgements(classifier):
    with serving(classifier) as served, httpx.Client(base_url=served.url) as kept:
        assert kept.get("/live").status_code == 200
        (connection,) = served.server.server_state.connections
        taken = connection.transport.get_extra_info("socket")
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_no_more_requests_than_allowed_are_answered_at_once(classifier):
    go = threading.Event()

    def change(model):
        plain = model.predict

        def predict(series, most):
            go.wait(20)
            return plain(series, most)

        model.predict = predict

    with serving(classifier, change, concurrent=3) as served, ThreadPoolExecutor(3) as pool:
        held = [pool.submit(httpx.post, f"{served.url}/predict", json=ONE, timeout=60) for _ in range(3)]
        gate = served.server.config.app
        eventually(lambda: gate.requests == 3)
        refused = served.client.post("/predict", json=ONE)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"] == "3 requests are being answered; try again"
        assert served.client.get("/live").status_code == 200
        go.set()
        assert [one.result().status_code for one in held] == [200] * 3
        assert served.client.post("/predict", json=ONE).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(classifier):
    with serving(classifier, patience=0.3) as served:
        slow = socket.create_connection(served.server._address[:2])
        with slow:
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            slow.settimeout(20)
            assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(served.server._address[:2]) as gone:
            gone.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            eventually(lambda: served.server.config.app.requests == 1)
        eventually(lambda: served.server.config.app.requests == 0)
        eventually(lambda: ("/predict", "POST", 499) in calls(served))
        assert calls(served)["/predict", "POST", 408] == 1


@pytest.mark.parametrize("head", [b"", b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Slow:"], ids=["none", "half"])
def test_the_head_of_a_request_is_not_waited_for_without_end(classifier, head):
    with (
        serving(classifier, patience=0.3) as served,
        socket.create_connection(served.server._address[:2]) as silent,
        httpx.Client(base_url=served.url) as kept,
    ):
        assert kept.get("/live").status_code == 200
        silent.sendall(head)
        silent.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(100) == b""
        (connection,) = served.server.server_state.connections
        assert kept.get("/live").status_code == 200, "one that has asked before is kept"
        assert connection in served.server.server_state.connections


def test_probes_and_labels_that_are_bounded(classifier):
    with serving(classifier, environment="staging") as served:
        assert served.client.get("/live").json() == {"status": "alive"}
        assert served.client.get("/ready").json() == {"status": "ready"}
        health = served.client.get("/health")
        assert health.json().keys() >= {"status", "timestamp", "uptime", "version", "resources", "components"}
        assert health.status_code == (200 if health.json()["status"] == "healthy" else 503)
        assert set(health.json()["components"]) == {"model", "metrics", "tracing", "logging"}
        about = served.client.get("/model").json()
        assert (about["channels"], about["outputs"], about["environment"]) == (1, 2, "staging")
        for path in ("/a", "/b", "/predict/7"):
            assert served.client.request("BREW", path).status_code == 404
        counted = calls(served)
        text = served.client.get("/metrics").text
    assert counted["other", "other", 404] == 3
    assert 'liquid_nn_active_models{environment="staging"} 1.0' in text
    assert 'liquid_nn_model_deployments_total{status="completed",target_platform="serve"} 1.0' in text
    assert 'liquid_nn_memory_usage_bytes{component="process"}' in text


def test_full_disk_or_memory_is_critical(classifier, monkeypatch):
    import psutil

    used = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: used._replace(percent=95.0))
    with serving(classifier) as served:
        health = served.client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "critical")
    assert "memory over 90 %" in health.json()["reasons"]


def test_the_callers_trace_goes_on(classifier, tmp_path):
    with serving(classifier) as served:
        served.client.post("/predict", json=asked([[[1], [2]], [[3]]]), headers={"traceparent": CALLER})
        served.client.post("/predict", json=ONE)
        served.client.post("/predict", json=ONE, headers={"traceparent": CALLER[:-1] + "0"})
        folder = served.telemetry.dir
    spans = read_spans(f"{folder}/traces.jsonl")
    first, second = spans[:4], spans[4:]
    assert [span["name"] for span in first] == [
        "preprocess_input",
        "model_forward_pass",
        "postprocess_output",
        "liquid_nn_inference",
    ]
    assert {span["traceId"] for span in first} == {"0af7651916cd43dd8448eb211c80319c"}
    assert first[3]["parentSpanId"] == "b7ad6b7169203331"
    assert {span["parentSpanId"] for span in first[:3]} == {first[3]["spanId"]}
    assert first[0]["attributes"] == {"liquid_train.input.shape": "[2, 2, 1]"}
    assert first[2]["attributes"] == {"liquid_train.output.shape": "[2, 2]"}
    forward = first[1]["attributes"]
    assert forward["liquid_train.model.type"] == "LiquidClassifier"
    assert forward["liquid_train.model.parameters"] == sum(p.numel() for p in served.model.task.parameters())
    assert (forward["liquid_train.batch.samples"], forward["liquid_train.device"]) == (2, "cpu")
    assert forward["liquid_train.wait.duration"] >= 0
    assert len(second) == 4, "the third caller does not sample its trace"
    assert second[3].get("parentSpanId") is None
    assert second[3]["traceId"] != first[0]["traceId"]


def test_telemetry_switched_off_still_serves(classifier, monkeypatch, tmp_path):
    monkeypatch.setenv("LIQUID_TELEMETRY_ENABLED", "0")
    with serving(classifier) as served:
        assert served.client.post("/predict", json=ONE).status_code == 200
        assert served.client.get("/metrics").status_code == 200
    assert not (tmp_path / "runs").exists()
