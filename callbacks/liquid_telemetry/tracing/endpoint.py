"""Whether and how to send spans: the option, then OpenTelemetry's standard variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from liquid_telemetry.tracing.send import INSTALL

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PACKAGES = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}


class OtlpError(ValueError):
    """An OTLP setting that cannot be followed; the message says which, why and what to do."""


def exporter_factory(
    endpoint: str | None, environment: Mapping[str, str]
) -> Callable[[], SpanExporter] | None:
    """How to build the SDK's exporter; None when nothing asks for sending.

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
    return lambda: _build(protocol, endpoint)


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
