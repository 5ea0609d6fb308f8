"""The collector: does it take an empty export."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from liquid_train.doctor.clock import check_clock
from liquid_train.doctor.finding import Area, Finding
from liquid_train.doctor.web import TIMEOUT, NoAnswerError, Server

USUAL = "http://127.0.0.1:4318"
_GRPC_PORT = 4317
_PATH = "/v1/traces"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_START = "make stack starts one (docs/stack.md); another address: --otlp URL"


def configured(environment: Mapping[str, str]) -> str | None:
    """Return the endpoint that OpenTelemetry's variables name."""
    return next((environment[name] for name in _ENDPOINTS if environment.get(name)), None)


def check_otlp(url: str, *, named: bool, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield whether an OTLP receiver takes traces.

    Args:
        url: Its base, as ``--telemetry.otlp_endpoint`` takes it.
        named: Whether the user named it, by option or variable.
        environment: Where OpenTelemetry's variables may have headers and the protocol.
    """
    area = Area("otlp", named=named)
    grpc = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "") == "grpc"
    if grpc and "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        yield area.problem("traces", f"{url!r} is no URL", f"{_ENDPOINTS[1]}=http://HOST:4318, or --otlp URL")
        return
    server = Server(url.rstrip("/").removesuffix(_PATH), _headers(environment))
    try:
        if grpc:
            yield _connect(area, server)
            return
        reply = server.post(_PATH, b'{"resourceSpans":[]}', "application/json")
    except NoAnswerError as error:
        report = area.absent if error.nobody else area.foreign
        hint = "; 4317 is the port of gRPC, HTTP is on 4318" if server.port == _GRPC_PORT else ""
        yield report("traces", f"{server.url}: {error}{hint}", _START)
        return
    if reply.status == 200:
        yield area.ok("traces", f"{server.url} takes an empty export over HTTP")
    elif reply.status in (401, 403):
        todo = f"set {_HEADERS[1]}, as in authorization=Bearer%20TOKEN"
        yield area.foreign("traces", f"{server.url} asks for a login (HTTP {reply.status})", todo)
    else:
        yield area.foreign("traces", f"{server.url} answers HTTP {reply.status} to {_PATH}", _START)
    yield from check_clock(area, server)


def _connect(area: Area, server: Server) -> Finding:
    try:
        socket.create_connection((server.host, server.port), TIMEOUT).close()
    except ConnectionRefusedError:
        return area.absent("traces", f"{server.url}: nothing listens there", _START)
    except OSError as error:
        return area.foreign("traces", f"{server.url}: {error}", _START)
    return area.ok("traces", f"{server.url} can be connected to; whether it takes gRPC was not tried")


def _headers(environment: Mapping[str, str]) -> dict[str, str]:
    text = next((environment[name] for name in _HEADERS if environment.get(name)), "")
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}
