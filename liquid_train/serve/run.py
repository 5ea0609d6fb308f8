"""From settings to a server that runs until a signal ends it."""

from __future__ import annotations

import gc
import logging
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
import uvicorn

from liquid_train.errors import InputError
from liquid_train.serve.app import build
from liquid_train.serve.model import Model
from liquid_train.serve.settings import Limits, Settings
from liquid_train.serve.telemetry import Deployment, ServeTelemetry

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TICKS = 5
"""Of uvicorn, a tenth of a second each."""
_SPARE = 64
"""Connections besides those of requests and streams: probes, scrapes, and those that are idle."""


def serve(settings: Settings) -> None:
    """Serve until a signal, which is raised again when everything that was accepted has been answered.

    Raises:
        InputError: The checkpoint or the address cannot be had.
    """
    torch.set_num_threads(settings.threads)
    began = time.time_ns()
    listener = listen(settings.host, settings.port, settings.limits)
    try:
        model = _load(settings, began)
        telemetry = ServeTelemetry(model, settings, Deployment(model.version, began))
        reason = "fault"
        try:
            server = Uvicorn(model, settings, telemetry, listener)
            gc.collect()
            gc.freeze()  # what was imported stays: to look through it again holds up every request for half a second
            server.run(sockets=[listener])
            reason = "closed"
        except KeyboardInterrupt:
            reason = "user"
            raise
        except SystemExit:
            reason = "terminated"
            raise
        finally:
            telemetry.ended(reason)
    finally:
        listener.close()


def _load(settings: Settings, began: int) -> Model:
    try:
        return Model.load(settings.checkpoint)
    except Exception as error:
        path = Path(settings.checkpoint)
        if path.is_file():  # else it is a slip of the pen, no deployment
            ServeTelemetry(None, settings, Deployment(path.name, began)).failed(error)
        raise


def listen(host: str, port: int, limits: Limits) -> socket.socket:
    """Take the address.

    Raises:
        InputError: It cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"serve: cannot serve at {host}:{port}: {reason}; choose another --host or --port"
        ) from error
    # Connections inherit both. asyncio sets the first only where a socket names its protocol.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # the kernel drops a client that does not read
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.patience * 1000))
    return listener


class _Known(logging.Filter):
    """Leaves out what uvicorn says of every stream that is refused by an answer."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is something else."""
        return "returned without completing handshake" not in record.getMessage()


class Uvicorn(uvicorn.Server):
    """Tells when it serves.

    Args:
        model: What is served.
        settings: Of the operator.
        telemetry: Is told.
        listener: Bound to the address.
    """

    def __init__(
        self, model: Model, settings: Settings, telemetry: ServeTelemetry, listener: socket.socket
    ) -> None:
        limits = settings.limits
        super().__init__(
            uvicorn.Config(
                build(model, settings, telemetry),
                access_log=False,
                lifespan="on",
                limit_concurrency=limits.concurrent + limits.streams + _SPARE,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=max(1, round(limits.grace)),
                timeout_keep_alive=75,
                ws_max_size=limits.payload,
                ws_per_message_deflate=False,
            )
        )
        logging.getLogger("uvicorn.error").addFilter(_Known())
        self._model, self._settings, self._telemetry = model, settings, telemetry
        self._address = listener.getsockname()
        self._silent: dict[Any, float] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, then say so."""
        await super().startup(sockets)
        if self.should_exit:
            return
        self._telemetry.completed()
        host, port = self._settings.host, self._address[1]
        shown = f"[{host}]" if ":" in host else host
        sys.stdout.write(f"{self._model.name} {self._model.version} at http://{shown}:{port} until Ctrl-C\n")
        if self._telemetry.dir is not None:
            sys.stdout.write(f"events and traces in {self._telemetry.dir}\n")
        sys.stdout.flush()
        if host not in _LOOPBACK and self._settings.token is None:
            sys.stderr.write(
                f"liquid-train: {host} is reached from other machines and no token is asked for; "
                "set --token-file or --token-env\n"
            )

    async def on_tick(self, counter: int) -> bool:
        """Drop connections that have not sent the head of a request in time; uvicorn waits for those without end."""
        if counter % _TICKS == 0:
            now, patience = time.monotonic(), self._settings.limits.patience
            silent = [one for one in self.server_state.connections if getattr(one, "cycle", self) is None]
            self._silent = {one: self._silent.get(one, now) for one in silent}
            for connection in [one for one, since in self._silent.items() if now - since > patience]:
                connection.transport.abort()
        return await super().on_tick(counter)
