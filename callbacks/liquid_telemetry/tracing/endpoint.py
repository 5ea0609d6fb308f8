"""Whether and how to send spans: the option, then OpenTelemetry's standard variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

INSTALL = "pip install 'liquid-train[otlp]'"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PACKAGES = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OTLP_PORTS = (4317, 4318)
_DEFAULTS = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}


class OtlpError(ValueError):
    """An OTLP setting that cannot be followed; the message says which, why and what to do."""


@dataclass(frozen=True)
class Destination:
    """A collector.

    Args:
        url: As it was given, for people; the SDK's default where the variables name none.
        protocol: ``http/protobuf`` or ``grpc``.
        endpoint: Base URL by option; None leaves it to the SDK, which reads the variables.
    """

    url: str
    protocol: str
    endpoint: str | None = None

    def build(self) -> Any:
        """The SDK's exporter; imports the SDK."""
        return _build(self.protocol, self.endpoint)


def find_destination(endpoint: str | None, environment: Mapping[str, str]) -> Destination | None:
    """Where to send spans; None when nothing asks for sending.

    Args:
        endpoint: Base URL, as ``http://localhost:4318``; the path ``/v1/traces`` is added for HTTP.
        environment: ``OTEL_SDK_DISABLED``, ``OTEL_TRACES_EXPORTER``, ``OTEL_EXPORTER_OTLP_*``.

    Raises:
        OtlpError: The protocol is unknown, or its package is not installed.
    """
    if not (endpoint or _asked_by(environment)):
        return None
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
    package = _PACKAGES.get(protocol)
    if package is None:
        raise OtlpError(
            f"{_PROTOCOLS[1]}={protocol!r}: must be one of {', '.join(_PACKAGES)}; set one of them"
        )
    if not _installed(package):
        raise OtlpError(f"sending traces by {protocol} needs the OpenTelemetry SDK and exporter: {INSTALL}")
    named = next((environment[name] for name in _ENDPOINTS if environment.get(name)), _DEFAULTS[protocol])
    return Destination(endpoint or named, protocol, endpoint)


def find_page(template: str | None, destination: Destination | None) -> str | None:
    """Where a person sees a trace, with ``{trace_id}`` for its id; None where that is not known.

    Args:
        template: The user's; else spans that go to the usual port of this machine are taken to be seen in a Jaeger
            beside it.
        destination: Where spans are sent.
    """
    if template is not None or destination is None:
        return template
    try:
        url = urlsplit(destination.url)
        usual = url.hostname in _LOOPBACK and url.port in _OTLP_PORTS
    except ValueError:
        return None
    return "http://localhost:16686/trace/{trace_id}" if usual else None


def _asked_by(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if exporter in ("none", "console"):
        return False
    return exporter == "otlp" or any(environment.get(name) for name in _ENDPOINTS)


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None and find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


def _build(protocol: str, endpoint: str | None) -> Any:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    if endpoint is None:
        return Http()
    base = endpoint.rstrip("/")
    return Http(endpoint=base if base.endswith("/v1/traces") else f"{base}/v1/traces")
