"""The endpoints."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from liquid_telemetry.exporter import health
from liquid_telemetry.exporter.core import Exporter
from liquid_telemetry.exporter.server import Request, Response
from liquid_telemetry.exporter.views import Views
from liquid_telemetry.live.page import document

ENDPOINTS = ("/", "/api/runs", "/api/runs/{run_id}", "/health", "/live", "/metrics", "/ready")
_ONE_RUN = "/api/runs/"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
OTHER = "other"
_SERVED = ("GET", "HEAD")


class Routes:
    """Answers requests from an exporter, and counts them."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._views = Views(exporter)
        self._handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self._page,
            "/api/runs": self._runs,
            "/api/runs/{run_id}": self._run,
            "/health": self._health,
            "/live": self._live,
            "/metrics": self._metrics,
            "/ready": self._ready,
        }

    async def __call__(self, request: Request | None) -> Response:
        """Answer; a request that could not be read gets 400."""
        response = await self._route(request)
        endpoint = _endpoint(request.path) if request else OTHER
        method = request.method if request and request.method in METHODS else OTHER
        self._exporter.count_call(endpoint, method, response.status)
        return response

    async def _route(self, request: Request | None) -> Response:
        if request is None:
            return _json(400, {"error": "not an HTTP/1 request"})
        handler = self._handlers.get(_endpoint(request.path))
        if handler is None:
            return _json(404, {"error": f"no such path; there are {', '.join(self._handlers)}"})
        if request.method not in _SERVED:
            return _json(405, {"error": "method not allowed"}, {"Allow": ", ".join(_SERVED)})
        try:
            return await handler(request)
        except Exception as error:  # a fault of ours must not end the server
            self._exporter.faults.report("http", error)
            return _json(500, {"error": type(error).__name__})

    async def _live(self, request: Request) -> Response:
        return _json(200, {"status": "alive"})

    async def _ready(self, request: Request) -> Response:
        self._exporter.look()
        trains = any(run.live and run.job and run.state == "running" for run in self._exporter.runs)
        return _json(200, {"status": "ready"}) if trains else _json(503, {"status": "not ready"})

    async def _health(self, request: Request) -> Response:
        exporter = self._exporter
        await exporter.sample_host()
        exporter.look(measure=True)
        runs = [run for run in exporter.runs if run.live]
        if wanted := request.query.get("run"):
            runs = [run for run in exporter.runs if run.run_id == wanted[0]]
            if not runs:
                return _json(404, {"error": "no such run"})
        now = exporter.clock()
        report = health.report(runs, exporter.host.sample, exporter.settings, now, now - exporter.started)
        return _json(200 if report["status"] == health.HEALTHY else 503, report)

    async def _metrics(self, request: Request) -> Response:
        scrape = await self._exporter.scrape()
        encode, content_type = _encoder(request.headers.get("accept", ""))
        body, headers = encode(_Families(scrape.families)), {"Content-Type": content_type}
        packed = _packed(request, body, headers)
        real = request.method == "GET" and "x-prometheus-scrape-timeout-seconds" in request.headers
        return replace(packed, sent=(lambda: self._exporter.acknowledge(scrape)) if real else None)

    async def _page(self, request: Request) -> Response:
        return _packed(request, *document())

    async def _runs(self, request: Request) -> Response:
        return _packed(request, *_encoded(await self._views.overview()))

    async def _run(self, request: Request) -> Response:
        found = await self._views.detail(unquote(request.path.removeprefix(_ONE_RUN)), request.query)
        return _json(404, {"error": "no such run"}) if found is None else _packed(request, *_encoded(found))


class _Families:
    """What prometheus_client's encoders ask for."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    try:
        return choose_encoder(_preferred(accept))
    except TypeError:  # a version that is no number
        return choose_encoder("")


def _preferred(accept: str) -> str:
    """Return the entry of an ``Accept`` header that has the highest weight among the formats we serve.

    prometheus_client takes the first that it knows, whatever the weights.
    """
    known = ("application/openmetrics-text", "text/plain", "text/*", "*/*")
    offers = [offer.strip() for offer in accept.split(",")]
    weighted = [(_weight(offer), offer) for offer in offers if offer.split(";")[0].strip() in known]
    best = max(weighted, key=lambda pair: pair[0], default=(0.0, ""))
    return best[1] if best[0] > 0 else ""


def _weight(offer: str) -> float:
    for parameter in offer.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _endpoint(path: str) -> str:
    """The endpoint that serves a path, as its calls are counted."""
    if path.startswith(_ONE_RUN):
        return ENDPOINTS[2]
    return path if path in ENDPOINTS else OTHER


def _takes_gzip(header: str) -> bool:
    offers = [offer.strip().lower() for offer in header.split(",")]
    return any(offer.split(";")[0].strip() in ("gzip", "x-gzip") and _weight(offer) > 0 for offer in offers)


def _encoded(content: dict[str, Any]) -> tuple[bytes, Mapping[str, str]]:
    return json.dumps(content, allow_nan=False).encode(), {"Content-Type": "application/json"}


def _packed(request: Request, body: bytes, headers: Mapping[str, str]) -> Response:
    """An answer, compressed where that is understood."""
    if _takes_gzip(request.headers.get("accept-encoding", "")):
        return Response(200, gzip.compress(body, 3), {**headers, "Content-Encoding": "gzip"})
    return Response(200, body, headers)


def _json(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(content).encode() + b"\n"
    return Response(status, body, {"Content-Type": "application/json", **(headers or {})})
