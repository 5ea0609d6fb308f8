"""Serves the page for the runs in a folder, which may have ended long ago."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from liquid_telemetry.exporter.server import HttpServer, Request, Response
from liquid_telemetry.live.answer import detail, overview
from liquid_telemetry.live.archive import ArchivedRun, find_runs
from liquid_telemetry.live.page import document

_MAX_RUNS = 1000
_ONE_RUN = "/api/runs/"


class Archive:
    """Answers what the page asks, from the run directories in a folder.

    Args:
        folder: Holds run directories, or is one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: dict[str, ArchivedRun] = {}
        self._busy = asyncio.Lock()

    async def __call__(self, request: Request | None) -> Response:
        """Answer; one request at a time looks at the disk."""
        if request is None:
            return _json(400, {"error": "not an HTTP/1 request"})
        if request.method not in ("GET", "HEAD"):
            return _json(405, {"error": "method not allowed"})
        if request.path == "/":
            return Response(200, *document())
        async with self._busy:
            return await asyncio.to_thread(self._answer, request)

    def _answer(self, request: Request) -> Response:
        self._find()
        if request.path == "/api/runs":
            runs = [run.summary() for run in self._runs.values() if _refresh(run)]
            return _json(200, overview(runs, time.time(), None, str(self._folder)))
        run = self._runs.get(unquote(request.path.removeprefix(_ONE_RUN)))
        if run is None or not request.path.startswith(_ONE_RUN) or not _refresh(run):
            return _json(404, {"error": "no such run"})
        return _json(200, detail(run.summary(), run.points, run.log, request.query))

    def _find(self) -> None:
        folders = list(find_runs(self._folder))[:_MAX_RUNS]
        self._runs = {path.name: self._runs.get(path.name) or ArchivedRun(path) for path in folders}


def _refresh(run: ArchivedRun) -> bool:
    """Whether a run could be looked at; one whose files cannot be read is left out."""
    try:
        run.refresh()
    except OSError:
        return False
    finally:
        run.log.close()
    return True


def serve(folder: Path, host: str, port: int, ready: Callable[[str], None]) -> int:
    """Serve until SIGINT or SIGTERM, and return which it was.

    Args:
        folder: Holds run directories, or is one.
        host: Address to serve at.
        port: Its port; 0 for a free one.
        ready: Called with the page's address.

    Raises:
        OSError: The address cannot be had.
    """
    return asyncio.run(_serve(folder, host, port, ready))


async def _serve(folder: Path, host: str, port: int, ready: Callable[[str], None]) -> int:
    server, loop = HttpServer(Archive(folder)), asyncio.get_running_loop()
    done: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.put_nowait, int(number))
    found = await server.start(host, port)
    ready(f"http://{f'[{host}]' if ':' in host else host}:{found}/")
    ended_by = await done.get()
    await server.close()
    return ended_by


def _json(status: int, content: dict[str, Any]) -> Response:
    return Response(
        status, json.dumps(content, allow_nan=False).encode(), {"Content-Type": "application/json"}
    )
