"""A small HTTP/1.1 server that slow, idle and malformed clients cannot block.

It runs in one asyncio thread. A connection costs a few kilobytes; when there are too many, the one that has been
idle longest makes room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

MAX_CONNECTIONS = 64
MAX_HEAD = 16_384
_FIRST_REQUEST = 10.0
_NEXT_REQUEST = 75.0
_WRITE = 10.0


@dataclass(frozen=True)
class Request:
    """A request without its body, which no endpoint takes; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Response:
    """An answer; ``sent`` is called once the client has been handed all of it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: Callable[[], None] | None = None


Handler = Callable[[Request | None], Awaitable[Response]]
"""Answers a request; None stands for one that could not be read."""


@dataclass(eq=False)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    since: float
    busy: bool = False


class HttpServer:
    """Serves a handler.

    Args:
        handler: Called once for each request.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port.

        Raises:
            OSError: The address cannot be had.
        """
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD, backlog=128)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer, time.monotonic())
        writer.transport.set_write_buffer_limits(0)  # drain() then waits until the kernel has everything
        self._make_room()
        self._connections.add(connection)
        try:
            timeout = _FIRST_REQUEST
            while await self._answer(connection, timeout):
                timeout = _NEXT_REQUEST
        except (OSError, EOFError, asyncio.TimeoutError):
            pass
        finally:
            self._connections.discard(connection)
            writer.transport.abort() if connection.busy else writer.close()

    async def _answer(self, connection: _Connection, timeout: float) -> bool:
        """Serve one request; return whether the connection stays open."""
        try:
            head = await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), timeout)
            request = parse(head)
        except (ValueError, asyncio.LimitOverrunError):
            request = None
        connection.busy = True
        response = await self._handler(request)
        keep = request is not None and _keeps(request)
        connection.writer.write(
            _encode(response, keep, bodyless=request is not None and request.method == "HEAD")
        )
        await asyncio.wait_for(connection.writer.drain(), _WRITE)
        connection.busy, connection.since = False, time.monotonic()
        if response.sent is not None:
            response.sent()
        return keep

    def _make_room(self) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            idle = [connection for connection in self._connections if not connection.busy]
            longest = min(idle or self._connections, key=lambda connection: connection.since)
            self._connections.discard(longest)
            longest.writer.transport.abort()


def parse(head: bytes) -> Request:
    """Read the head of a request.

    Raises:
        ValueError: It is not HTTP/1.
    """
    lines = head.decode("latin-1").split("\r\n")
    if any(character < " " for line in lines for character in line):
        raise ValueError("control character in the head")
    method, target, protocol = lines[0].split(" ")
    if protocol not in ("HTTP/1.0", "HTTP/1.1") or not target.startswith("/"):
        raise ValueError(f"not an HTTP/1 request: {lines[0]!r}")
    headers: dict[str, str] = {}
    for line in filter(None, lines[1:]):
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise ValueError(f"not a header: {line!r}")
        headers[name.lower()] = value.strip()
    if protocol == "HTTP/1.0":
        headers["connection"] = "close"
    url = urlsplit(target)
    return Request(method, url.path, parse_qs(url.query), headers)


def _keeps(request: Request) -> bool:
    """Whether the connection can serve another request; not after a body, which is never read."""
    body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    return not body and request.headers.get("connection", "").lower() != "close"


def _encode(response: Response, keep: bool, *, bodyless: bool) -> bytes:
    headers = {
        "Content-Length": str(len(response.body)),
        "Connection": "keep-alive" if keep else "close",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **response.headers,
    }
    status = HTTPStatus(response.status)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if bodyless else response.body)
