"""Asking a server over HTTP, for two seconds at the most, whatever it does."""

from __future__ import annotations

import base64
import http.client
import json
import queue
import ssl
import threading
import time
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

TIMEOUT = 2.0
_MAX_BYTES = 16_000_000
_REFUSED = (ConnectionRefusedError,)


class NoAnswerError(Exception):
    """A server gave no answer that can be used; the text says why.

    Args:
        reason: Why, in words.
        nobody: Whether nothing listens there at all.
    """

    def __init__(self, reason: str, *, nobody: bool = False) -> None:
        super().__init__(reason)
        self.nobody = nobody


@dataclass(frozen=True)
class Reply:
    """An HTTP answer.

    Args:
        status: Its code.
        body: What it holds.
        headers: Its headers.
        at: Unix seconds of this host's clock, half way between question and answer.
    """

    status: int
    body: bytes
    headers: Message
    at: float

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            NoAnswerError: It is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            begin = self.body[:40].decode("utf-8", "replace")
            raise NoAnswerError(f"answered HTTP {self.status} with {begin!r}, which is no JSON") from error

    @property
    def skew(self) -> float | None:
        """Seconds that the server's clock is ahead of ours, None when it does not tell."""
        try:
            date = parsedate_to_datetime(self.headers.get("Date", ""))
            return date.timestamp() + 0.5 - self.at  # the header is cut to whole seconds
        except (TypeError, ValueError, OverflowError):
            return None


class Server:
    """A server at a base URL; a user and password in it are used, and never shown.

    Args:
        url: ``http://host:port``, perhaps with a user and a path.
        headers: Sent with every request.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._parts, self._headers = parts, dict(headers or {})
        self.host, self.port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        place = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{parts.scheme}://{place}{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}"
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        self.has_login = "Authorization" in self._headers
        self.replies: list[Reply] = []

    def get(self, path: str, **parameters: str) -> Reply:
        """Ask for a path.

        Raises:
            NoAnswerError: None came in time, or it is no HTTP.
        """
        return self._ask("GET", path + (f"?{urlencode(parameters)}" if parameters else ""), None, {})

    def post(self, path: str, body: bytes, content_type: str) -> Reply:
        """Send a body to a path.

        Raises:
            NoAnswerError: No answer came in time, or it is no HTTP.
        """
        return self._ask("POST", path, body, {"Content-Type": content_type})

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        """Ask in a thread of its own: a socket's timeout is one per byte, and names are looked up without one."""
        answers: queue.Queue[Reply | Exception] = queue.Queue()

        def ask() -> None:
            try:
                answers.put(self._exchange(method, path, body, headers))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True, name="doctor").start()
        try:
            answer = answers.get(timeout=TIMEOUT)
        except queue.Empty:
            raise NoAnswerError(f"no answer within {TIMEOUT:g} s") from None
        if isinstance(answer, Exception):
            raise self._explain(answer) from answer
        self.replies.append(answer)
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=TIMEOUT)
        try:
            asked = time.time()
            sent = {"Accept": "application/json", "Connection": "close", **self._headers, **headers}
            connection.request(method, self._parts.path.rstrip("/") + path, body, sent)
            response = connection.getresponse()
            at = (asked + time.time()) / 2
            return Reply(response.status, response.read(_MAX_BYTES), response.msg, at)
        finally:
            connection.close()

    def _explain(self, error: Exception) -> NoAnswerError:
        secure = self._parts.scheme == "https"
        if isinstance(error, _REFUSED):
            return NoAnswerError("nothing listens there", nobody=True)
        if isinstance(error, ssl.SSLCertVerificationError):
            return NoAnswerError(f"its certificate is not trusted ({error.verify_message})")
        if isinstance(error, ssl.SSLError):
            return NoAnswerError("does not speak TLS; the URL may have to begin with http://")
        if isinstance(error, (http.client.HTTPException, ConnectionResetError)):
            hint = "" if secure else "; if it speaks TLS, the URL has to begin with https://"
            return NoAnswerError(f"its answer is no HTTP{hint}")
        if isinstance(error, TimeoutError):
            return NoAnswerError(f"no answer within {TIMEOUT:g} s")
        if isinstance(error, OSError):
            return NoAnswerError(error.strerror or str(error) or type(error).__name__)
        return NoAnswerError(f"{type(error).__name__}: {error}")
