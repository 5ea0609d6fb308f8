"""What stands before the endpoints: token, limits on size, number and time, and the count of every call."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from liquid_train.serve.settings import Limits
from liquid_train.serve.telemetry import ServeTelemetry

GUARDED = ("/predict", "/stream", "/model", "/openapi.json")
"""Endpoints that ask for the token; probes and scrapes do not."""
_GONE = 499  # as nginx counts a client that left before its answer
_DRAIN = 8
"""So many times the payload limit is read and thrown away, so that the client gets to read why."""


class RefusalError(Exception):
    """An answer before the endpoint is asked."""

    def __init__(self, status: int, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Gate:
    """An ASGI application around another.

    Args:
        app: The endpoints.
        limits: What clients may ask.
        token: What they must know.
        telemetry: Counts calls.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None, telemetry: ServeTelemetry) -> None:
        self._app, self._limits, self._telemetry = app, limits, telemetry
        self._token = token.encode() if token is not None else None
        self.requests = self.streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, a stream or the lifespan."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = _GONE

        async def send_in_time(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await asyncio.wait_for(send(message), self._limits.patience)

        try:
            await self._answer(scope, receive, send_in_time)
        except asyncio.TimeoutError:
            status = _GONE  # it does not read; the server closes the connection
            raise
        except Exception:
            status = 500
            raise
        finally:
            self._telemetry.call(scope["path"], scope["method"], status)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_token(scope)
            if scope["path"] != "/predict" or scope["method"] != "POST":
                await self._app(scope, receive, send)
                return
            await self._predict(scope, receive, send)
        except RefusalError as refusal:
            await _refuse(refusal, send)

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self._limits.concurrent
        kind = _header(scope, b"content-type").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            await self._throw_away(receive)
            raise RefusalError(415, "the body must be JSON: Content-Type: application/json")
        if self.requests >= most:
            await self._throw_away(receive)
            raise RefusalError(429, f"{most} requests are being answered; try again", Retry_After="1")
        self.requests += 1
        try:
            body = await self._body(scope, receive)
            await self._app(scope, _replay(body, receive), send)
        finally:
            self.requests -= 1

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        patience = self._limits.patience
        try:
            return await asyncio.wait_for(self._read(scope, receive), patience)
        except asyncio.TimeoutError:
            raise RefusalError(408, f"the body took more than {patience:g} s", Connection="close") from None

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        most, body, declared = self._limits.payload, bytearray(), _header(scope, b"content-length")
        whole = False
        while not whole:
            if len(body) > most or (declared.isdigit() and int(declared) > most):
                await self._discard(receive)
                raise RefusalError(413, f"the body is larger than {most} bytes", Connection="close")
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusalError(_GONE, "the client has left")
            body += message.get("body", b"")
            whole = not message.get("more_body")
        if len(body) > most:
            raise RefusalError(413, f"the body is larger than {most} bytes")
        return bytes(body)

    async def _throw_away(self, receive: Receive) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._discard(receive), self._limits.patience)

    async def _discard(self, receive: Receive) -> None:
        left = self._limits.payload * _DRAIN
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if not message.get("more_body"):
                return

    def _check_token(self, scope: Scope) -> None:
        if self._token is None or scope["path"] not in GUARDED:
            return
        kind, _, given = _header(scope, b"authorization").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            raise RefusalError(
                401, "no or the wrong token: Authorization: Bearer TOKEN", WWW_Authenticate="Bearer"
            )

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_stream(scope)
        except RefusalError as refusal:
            self._telemetry.call(scope["path"], "GET", refusal.status)
            await _refuse_stream(refusal, scope, send)
            return
        self._telemetry.call(scope["path"], "GET", 101 if scope["path"] == "/stream" else 403)
        self.streams += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.streams -= 1

    def _check_stream(self, scope: Scope) -> None:
        self._check_token(scope)
        origin = _header(scope, b"origin").decode("latin-1")
        if origin and urlsplit(origin).netloc != _header(scope, b"host").decode("latin-1"):
            raise RefusalError(403, f"a page of {origin} may not open a stream here")
        if self.streams >= self._limits.streams:
            raise RefusalError(429, f"{self._limits.streams} streams are open; try again", Retry_After="1")


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body again, then what comes after it."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _encoded(refusal: RefusalError) -> tuple[MutableMapping[str, Any], bytes]:
    body = json.dumps({"error": refusal.error}).encode()
    fixed = {"content-type": "application/json", "content-length": str(len(body))}
    headers = [
        (name.lower().encode(), value.encode()) for name, value in {**fixed, **refusal.headers}.items()
    ]
    return {"status": refusal.status, "headers": headers}, body


async def _refuse(refusal: RefusalError, send: Send) -> None:
    start, body = _encoded(refusal)
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": body})


async def _refuse_stream(refusal: RefusalError, scope: Scope, send: Send) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.error})
        return
    start, body = _encoded(refusal)
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": body})
