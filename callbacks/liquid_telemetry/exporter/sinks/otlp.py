"""OTLP over HTTP: the whole state at each delivery, cumulative.

Source: opentelemetry-proto ``metrics.proto`` 1.x and the OTLP specification, "OTLP/HTTP".
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Mapping
from urllib.parse import unquote

from liquid_telemetry import __version__
from liquid_telemetry.exporter.sinks import protobuf
from liquid_telemetry.exporter.sinks.http import Target
from liquid_telemetry.exporter.sinks.otlp_points import Points, attributes
from liquid_telemetry.exporter.sinks.shipment import Shipment, SinkError

_PROTOBUF = "application/x-protobuf"


class Otlp:
    """Sends every series at each delivery; one that has gone is ended by a point without a value.

    Args:
        wanted: As ``find_sinks`` returns it: ``to``, ``headers``, ``compression``, ``certificate``, ``attributes``,
            ``service``.
        identity: Of the exporter; the resource's ``service.instance.id``.
    """

    def __init__(self, wanted: Mapping[str, str], identity: str) -> None:
        self._target = Target(wanted["to"], wanted.get("certificate", ""))
        self._plain = wanted.get("compression", "gzip") == "none"
        self._headers = _pairs(wanted.get("headers", ""))
        self._resource = protobuf.message(1, attributes(1, _resource(wanted, identity)))
        self._points = Points()

    async def send(self, shipment: Shipment) -> None:
        """Send; what the receiver has refused is an error."""
        points, following = self._points.encode(shipment)
        await self._post(points)
        self._points = following

    async def remove(self) -> None:
        """End every series."""
        await self.send(Shipment([], time.time(), 0.0, {}))

    async def _post(self, metrics: bytes) -> None:
        scope = protobuf.message(
            1, protobuf.text(1, "liquid_telemetry.exporter"), protobuf.text(2, __version__)
        )
        body = protobuf.message(1, self._resource, protobuf.message(2, scope, metrics))
        headers = {"Content-Type": _PROTOBUF, **self._headers}
        if not self._plain:
            body, headers["Content-Encoding"] = gzip.compress(body, 3), "gzip"
        _check(await self._target.request("POST", body, headers), self._target.name)


def _check(answer: bytes, name: str) -> None:
    """An answer of success may say that a part was refused; one that is no protobuf says nothing."""
    try:
        refusal = dict(protobuf.read(answer)).get(1, b"")
        partial = dict(protobuf.read(refusal)) if isinstance(refusal, bytes) else {}
    except ValueError:
        return
    if partial.get(1):
        said = partial.get(2, b"")
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else ""
        raise SinkError(f"{name}: {partial[1]!r} data points were refused: {text[:200]}")


def _resource(wanted: Mapping[str, str], identity: str) -> dict[str, str]:
    return {
        "service.name": "liquid-train",
        "service.version": __version__,
        "service.instance.id": identity,
        "host.name": identity.rpartition(":")[0],
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "liquid_telemetry",
        "telemetry.sdk.version": __version__,
        **_pairs(wanted.get("attributes", "")),
        **({"service.name": wanted["service"]} if wanted.get("service") else {}),
    }


def _pairs(text: str) -> dict[str, str]:
    """Read ``key=value,key=value``, percent-encoded, as in OpenTelemetry's variables."""
    items = (item.partition("=") for item in text.split(","))
    return {
        unquote(key.strip()): unquote(value.strip()) for key, equals, value in items if equals and key.strip()
    }
