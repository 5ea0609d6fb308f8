"""The WebSocket /stream: one step at a time, its state bound to the connection."""

import json
import socket

import numpy as np
import pytest
import torch
from servers import eventually
from serving import asked, serving
from tiny import LIGHTNING_NOISE
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

pytestmark = [pytest.mark.filterwarnings(noise) for noise in LIGHTNING_NOISE]


def stream(served, **options):
    return connect(served.url.replace("http", "ws") + "/stream", open_timeout=20, close_timeout=5, **options)


def step(connection, values, timespan=1.0):
    connection.send(json.dumps({"values": values, "timespan": timespan}))
    return json.loads(connection.recv(timeout=20))


def drawn(steps, channels):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(steps, channels, generator=generator).tolist(), [0.0, *([0.5, 2.0] * steps)][:steps]


@pytest.mark.parametrize(("kind", "channels"), [("classifier", 1), ("regressor", 2)])
def test_after_each_step_it_says_what_predict_says_of_all(kind, channels, request):
    values, spans = drawn(7, channels)
    with serving(request.getfixturevalue(kind)) as served:
        with stream(served) as one, stream(served) as other:
            for at in range(len(values)):
                known = step(one, values[at], spans[at])
                step(other, [9.0] * channels)
                whole = served.client.post(
                    "/predict", json=asked([values[: at + 1]], [spans[: at + 1]])
                ).json()
                assert known["step"] == at
                np.testing.assert_allclose(known["output"], whole["outputs"][0], rtol=1e-4, atol=1e-6)
        with stream(served) as fresh:
            alone = served.client.post("/predict", json=asked([values[:1]], [spans[:1]])).json()
            np.testing.assert_allclose(
                step(fresh, values[0], spans[0])["output"], alone["outputs"][0], rtol=1e-4
            )
        text = served.client.get("/metrics").text
    assert 'liquid_nn_api_calls_total{endpoint="/stream",method="GET",status="101"} 3.0' in text
    assert "liquid_nn_inference_duration_seconds_count 23.0" in text


def test_a_bad_step_is_told_and_changes_nothing(classifier):
    with serving(classifier) as served, stream(served) as one, stream(served) as other:
        assert step(one, [0.5]) == step(other, [0.5])
        for text, error in (
            ("{", "Invalid JSON"),
            ('{"values": [1, 2]}', "values: 2 channels, the model has 1"),
            ('{"values": [NaN]}', "values.0: Input should be a finite number"),
            ('{"values": [1], "timespan": -1}', "timespan: Input should be greater than or equal to 0"),
            ('{"values": [1], "reset": true}', "reset: Extra inputs are not permitted"),
        ):
            one.send(text)
            assert error in json.loads(one.recv(timeout=20))["error"]
        assert step(one, [0.25]) == step(other, [0.25])
        one.send(b"\x00")
        with pytest.raises(ConnectionClosed) as closed:
            one.recv(timeout=20)
        assert closed.value.rcvd.code == 1003


def test_streams_are_bounded_and_their_places_come_back(classifier, capfd):
    with serving(classifier, streams=2) as served, stream(served):
        with stream(served), pytest.raises(InvalidStatus) as refused, stream(served):
            pass
        assert refused.value.response.status_code == 429
        assert json.loads(refused.value.response.body)["error"] == "2 streams are open; try again"
        eventually(lambda: served.server.config.app.streams == 1)
        with stream(served) as third:
            assert step(third, [1.0])["step"] == 0
    assert "handshake" not in capfd.readouterr().err


def test_a_silent_stream_is_closed(classifier):
    with serving(classifier, idle=0.2) as served, stream(served) as quiet:
        assert step(quiet, [1.0])["step"] == 0
        with pytest.raises(ConnectionClosed) as closed:
            quiet.recv(timeout=20)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "silent for 0.2 s")


def test_messages_are_bounded(classifier):
    with serving(classifier, payload=1000) as served, stream(served) as large:
        large.send(json.dumps({"values": [1.0] * 2000}))
        with pytest.raises(ConnectionClosed) as closed:
            large.recv(timeout=20)
    assert closed.value.rcvd.code == 1009


def test_a_page_of_another_site_is_refused(classifier):
    with serving(classifier) as served:
        with pytest.raises(InvalidStatus) as refused, stream(served, origin="https://evil.example"):
            pass
        assert refused.value.response.status_code == 403
        with stream(served, origin=served.url) as own:
            assert step(own, [1.0])["step"] == 0


def test_one_that_never_reads_is_dropped_and_others_are_served(classifier):
    with serving(classifier, patience=1.0, streams=2) as served:
        address = served.server._address
        deaf = socket.create_connection(address[:2])
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(HANDSHAKE.encode())
        deaf.settimeout(0.2)
        gate = served.server.config.app
        eventually(lambda: gate.streams == 1)
        eventually(lambda: flood(deaf) or gate.streams == 0, timeout=15)
        with stream(served) as other:
            assert step(other, [1.0])["step"] == 0
        eventually(lambda: not served.server.server_state.connections)
        deaf.close()


HANDSHAKE = (
    "GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
FRAME = b"\x81" + bytes([0x80 | 17]) + b"\0\0\0\0" + b'{"values": [0.5]}'


def flood(connection):
    """Send steps without reading an answer, until the server takes no more; return whether it has closed."""
    try:
        for _ in range(50):
            connection.sendall(FRAME * 50)
    except TimeoutError:
        return False
    except OSError:
        return True
    return False
