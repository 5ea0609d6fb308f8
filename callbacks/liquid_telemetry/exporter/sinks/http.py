"""One HTTP request without a thread: whoever calls bounds the time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from liquid_telemetry.exporter.sinks.shipment import SinkError

_LIMIT = 65_536
_SHOWN = 200


@dataclass(frozen=True)
class Target:
    """A server and a path; the user and password of the URL become a header.

    Args:
        url: ``http`` or ``https``.
        certificate: File with the authorities to trust instead of the system's.
    """

    url: str
    certificate: str = ""

    @property
    def name(self) -> str:
        """The URL without user and password."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    async def request(
        self, method: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Send a request; return the body of the answer.

        Raises:
            OSError, EOFError: There is no connection, or it broke.
            SinkError: The answer is not a success.
        """
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        context = ssl.create_default_context(cafile=self.certificate or None) if secure else None
        port = parts.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context, limit=_LIMIT)
        try:
            writer.write(self._head(method, len(body), headers or {}) + body)
            await writer.drain()
            return await self._answer(reader)
        finally:
            writer.transport.abort()

    def _head(self, method: str, length: int, headers: Mapping[str, str]) -> bytes:
        parts = urlsplit(self.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = {
            "Host": parts.netloc.rpartition("@")[2],
            "User-Agent": "liquid-telemetry",
            "Content-Length": str(length),
            "Connection": "close",
            **headers,
        }
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            fields["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        if any(character < " " for line in lines for character in line):
            raise SinkError(f"{self.name}: a control character in the URL or in a header")
        return "\r\n".join([*lines, "", ""]).encode()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ", 2)[1])
        except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
            raise SinkError(f"{self.name}: the answer is not HTTP") from error
        body = b""
        if status != 204:
            with contextlib.suppress(asyncio.IncompleteReadError):
                body = await _body(reader, head)
        if not 200 <= status < 300:
            said = body[:_SHOWN].decode("utf-8", "replace").strip()
            raise SinkError(f"{self.name}: {head.splitlines()[0]}: {said}")
        return body


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-length" and value.strip().isdecimal():
            return await reader.readexactly(min(int(value), _LIMIT))
    body = b""
    while len(body) < _LIMIT and (part := await reader.read(_LIMIT)):
        body += part
    return body
