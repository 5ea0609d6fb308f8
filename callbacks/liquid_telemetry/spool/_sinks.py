"""Which sinks a run wants its metrics sent to, besides being served: options, then the environment.

The exporter sends, not the training process; the run's record tells it where to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

Sink = dict[str, str]
"""``kind``, ``to``, and what the kind needs besides; plain text, because it lies in a run's record."""

PUSHGATEWAY, TEXTFILE, OTLP = "pushgateway", "textfile", "otlp"
OTLP_DEFAULT = "http://localhost:4318"
SINK_VARIABLES = (
    "LIQUID_TELEMETRY_PUSHGATEWAY",
    "LIQUID_TELEMETRY_TEXTFILE",
    "LIQUID_TELEMETRY_OTLP_METRICS",
)
"""Of the process that wants the sinks: the exporter learns of them, and of their details, by the run's record."""

_ON, _OFF = ("true", "1", "yes", "on"), ("", "false", "0", "no", "off")
_OTLP_VARIABLES = {
    "headers": ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
    "compression": ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"),
    "certificate": ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    "attributes": ("OTEL_RESOURCE_ATTRIBUTES",),
    "service": ("OTEL_SERVICE_NAME",),
}
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def find_sinks(
    pushgateway: str | None, textfile: str | None, otlp_metrics: bool | str, environment: Mapping[str, str]
) -> list[Sink]:
    """Return the sinks that are asked for.

    Args:
        pushgateway: URL of a Pushgateway, else ``LIQUID_TELEMETRY_PUSHGATEWAY``.
        textfile: Directory of node_exporter's textfile collector, else ``LIQUID_TELEMETRY_TEXTFILE``.
        otlp_metrics: Base URL of an OTLP receiver; True for the one that OpenTelemetry's variables name; else
            ``LIQUID_TELEMETRY_OTLP_METRICS``.
        environment: Those, and ``OTEL_EXPORTER_OTLP_*``.

    Raises:
        ValueError: One cannot be used; the message names it, the rule and the fix.
    """
    pushgateway = pushgateway or environment.get(SINK_VARIABLES[0])
    textfile = textfile or environment.get(SINK_VARIABLES[1])
    otlp_metrics = otlp_metrics or environment.get(SINK_VARIABLES[2], "")
    found: list[Sink] = []
    if pushgateway:
        _check_url("pushgateway", pushgateway, "http://localhost:9091")
        found.append({"kind": PUSHGATEWAY, "to": pushgateway.rstrip("/")})
    if textfile:
        found.append({"kind": TEXTFILE, "to": str(Path(textfile).absolute())})
    if str(otlp_metrics).lower() not in _OFF:
        found.append(_otlp(otlp_metrics, environment))
    return found


def _otlp(wanted: bool | str, environment: Mapping[str, str]) -> Sink:
    url = "" if str(wanted).lower() in _ON else str(wanted)
    if url:
        _check_url("otlp_metrics", url, OTLP_DEFAULT)
        url = url.rstrip("/").removesuffix("/v1/metrics") + "/v1/metrics"
    else:
        url = _otlp_default(environment)
    details = {name: _first(environment, names) for name, names in _OTLP_VARIABLES.items()}
    return {"kind": OTLP, "to": url, **{name: value for name, value in details.items() if value}}


def _otlp_default(environment: Mapping[str, str]) -> str:
    """The metrics' own endpoint is used as it is, the common one gets the path."""
    protocol = _first(environment, _PROTOCOLS)
    if protocol == "grpc":
        raise ValueError(
            "otlp_metrics=True with the protocol grpc: metrics are sent over HTTP; set "
            f"{_PROTOCOLS[0]}=http/protobuf, or pass the URL, as otlp_metrics={OTLP_DEFAULT!r}"
        )
    if own := environment.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        _check_url("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", own, f"{OTLP_DEFAULT}/v1/metrics")
        return own
    common = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or OTLP_DEFAULT
    _check_url("OTEL_EXPORTER_OTLP_ENDPOINT", common, OTLP_DEFAULT)
    return common.rstrip("/") + "/v1/metrics"


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _check_url(name: str, url: str, example: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{name}={url!r}: must be a URL such as {example!r}")
