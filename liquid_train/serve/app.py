"""The endpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from functools import partial
from typing import Any

import psutil
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response

from liquid_train import __version__
from liquid_train.serve.batcher import Batcher
from liquid_train.serve.check import UnfitError, check, tensors
from liquid_train.serve.gate import Gate
from liquid_train.serve.model import Model
from liquid_train.serve.problems import answer_problems
from liquid_train.serve.schemas import (
    Health,
    ModelInfo,
    PredictRequest,
    PredictResponse,
    Problem,
    State,
)
from liquid_train.serve.settings import Settings
from liquid_train.serve.stream import Stream
from liquid_train.serve.telemetry import ENDPOINTS, ServeTelemetry

_DESCRIPTION = """A trained liquid network. `/predict` answers whole sequences. `/stream` is a WebSocket for one
sequence step by step: send `{"values": [one number for each channel], "timespan": 1.0}` as text, get
`{"step": 0, "output": […]}`; the state lives and dies with the connection."""
_FULL = 90.0
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (400, "The body is not JSON."),
        (401, "No token, or the wrong one."),
        (408, "The body took too long."),
        (413, "The body is too large."),
        (415, "The body is not declared as JSON."),
        (422, "The body does not fit the model or the limits."),
        (429, "Too many requests at once."),
        (500, "A fault of the server."),
    )
}
_TOKEN: dict[int | str, dict[str, Any]] = {401: _REFUSALS[401]}


class Server:
    """What the endpoints share.

    Args:
        model: Answers.
        settings: Of the operator.
        telemetry: Is told of everything.
    """

    def __init__(self, model: Model, settings: Settings, telemetry: ServeTelemetry) -> None:
        self.model, self.settings, self.telemetry = model, settings, telemetry
        self.started = time.monotonic()
        self.ready = False
        self._executor = ThreadPoolExecutor(1, "predict")
        self.stream_executor = ThreadPoolExecutor(1, "stream")
        limits = settings.limits
        predict = partial(model.predict, most=limits.batch)
        self.batcher = Batcher(predict, self._executor, limits.batch, limits.wait)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Ready while the application lives."""
        self.batcher.start()
        self.ready = True
        yield
        self.ready = False
        await self.batcher.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self.stream_executor.shutdown(wait=False, cancel_futures=True)

    async def predict(self, body: PredictRequest, request: Request) -> PredictResponse:
        """Predict for whole sequences. Requests that come at once go through the model together."""
        check(body, self.model, self.settings.limits)
        with self.telemetry.inference.request(request.headers) as call:
            with call.preprocess() as step:
                series = list(tensors(body))
                step.set(
                    input_shape=f"[{len(series)}, {max(len(s.values) for s in series)}, {self.model.channels}]"
                )
            with call.forward() as step:
                answer = await self.batcher.submit(series)
                step.set(batch_samples=answer.together, wait_duration=answer.waited)
            with call.postprocess(answer.outputs):
                if not all(math.isfinite(value) for row in answer.outputs for value in row):
                    raise UnfitError("values: the network's output for them is not finite")
                return PredictResponse(
                    outputs=answer.outputs,
                    kind=self.model.kind,
                    model=self.model.name,
                    version=self.model.version,
                )

    def info(self) -> ModelInfo:
        """What is served."""
        model, limits = self.model, self.settings.limits
        return ModelInfo(
            model=model.name,
            version=model.version,
            kind=model.kind,
            channels=model.channels,
            outputs=model.outputs,
            environment=self.settings.environment,
            max_series=limits.series,
            max_steps=limits.steps,
            max_payload=limits.payload,
        )

    def health(self) -> Health:
        """How the server and its host are."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.fspath("."))
        parts = {
            "model": self.ready,
            **{name: self.telemetry.is_well(name) for name in ("metrics", "tracing", "logging")},
        }
        full = [
            name for name, percent in (("memory", memory.percent), ("disk", disk.percent)) if percent > _FULL
        ]
        ill = [name for name, well in parts.items() if not well]
        return Health(
            status="critical" if full else "degraded" if ill else "healthy",
            reasons=[*(f"{name} over {_FULL:g} %" for name in full), *(f"{name} had faults" for name in ill)],
            timestamp=datetime.now(timezone.utc).isoformat(),
            uptime=time.monotonic() - self.started,
            version=__version__,
            resources={
                "memory_usage_percent": memory.percent,
                "memory_available_gb": memory.available / 1e9,
                "disk_usage_percent": disk.percent,
                "disk_free_gb": disk.free / 1e9,
                "cpu_usage_percent": psutil.cpu_percent(),
            },
            components={
                name: State(status="healthy" if well else "degraded") for name, well in parts.items()
            },
        )


def build(model: Model, settings: Settings, telemetry: ServeTelemetry) -> Gate:
    """Return the application."""
    server = Server(model, settings, telemetry)
    app = FastAPI(
        title="liquid-train serve",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # those pages load scripts from other hosts
        redoc_url=None,
        lifespan=server.lifespan,
    )
    _complete(app, server)
    answer_problems(app, ENDPOINTS)
    _add_routes(app, server)
    return Gate(app, settings.limits, settings.token, telemetry)


def _add_routes(app: FastAPI, server: Server) -> None:
    app.post("/predict", responses=_REFUSALS)(server.predict)
    guarded = _TOKEN if server.settings.token is not None else {}

    @app.get("/model", responses=guarded)
    async def model() -> ModelInfo:
        """Say what is served, and what may be asked."""
        return server.info()

    @app.get("/live")
    async def live() -> State:
        """Tell that the process is up."""
        return State(status="alive")

    @app.get("/ready", responses={503: {"model": State}})
    async def ready() -> Response:
        """Tell whether requests are answered."""
        if server.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503)

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        """Tell how the server and its host are; 503 when not healthy, with the reasons."""
        report = server.health()
        return JSONResponse(report.model_dump(), 200 if report.status == "healthy" else 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(request: Request) -> Response:
        """Show the metrics of this server to Prometheus."""
        body, content_type = server.telemetry.metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    @app.websocket("/stream")
    async def stream(socket: WebSocket) -> None:
        settings = server.settings
        await Stream(socket, server.model, server.stream_executor, settings.limits, server.telemetry).run()


def _complete(app: FastAPI, server: Server) -> None:
    """Tell in the OpenAPI document what the model and the operator ask for."""
    plain, settings = app.openapi, server.settings

    def openapi() -> dict[str, Any]:
        document = plain()
        values = document["components"]["schemas"]["PredictRequest"]["properties"]["values"]
        series, channels = values["items"], server.model.channels
        values["maxItems"], series["maxItems"] = settings.limits.series, settings.limits.steps
        series["items"] |= {"minItems": channels, "maxItems": channels}
        if settings.token is not None:
            scheme = {"type": "http", "scheme": "bearer"}
            document["components"]["securitySchemes"] = {"token": scheme}
            for path in ("/predict", "/model"):
                for operation in document["paths"][path].values():
                    operation["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
