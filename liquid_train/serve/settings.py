"""What an operator may choose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what clients may ask. Sizes are bytes, times seconds.

    Args:
        batch: Series that go through the model together.
        wait: How long a request waits for others to share its batch.
        payload: Body of a request, or message of a stream.
        series: Series of one request.
        steps: Time steps of one series.
        concurrent: Requests that are answered at once.
        streams: Streams open at once.
        idle: After which a silent stream is closed.
        patience: For a client to send its body, or to read its answer.
        grace: For what has been accepted to be answered after SIGTERM.
    """

    batch: int = 64
    wait: float = 0.0
    payload: int = 1_048_576
    series: int = 256
    steps: int = 10_000
    concurrent: int = 64
    streams: int = 64
    idle: float = 60.0
    patience: float = 15.0
    grace: float = 30.0


@dataclass(frozen=True)
class Settings:
    """Of one server.

    Args:
        checkpoint: What is served.
        host: Address to listen on.
        port: Its port; 0 for a free one.
        environment: Value of the label of ``active_models``.
        token: Clients must know it, unless None.
        exporter: Whether the exporter process shows the metrics, too.
        dir: Folder that gets a run directory.
        threads: Of one torch operation.
        limits: On what clients may ask.
    """

    checkpoint: str
    host: str = "127.0.0.1"
    port: int = 8000
    environment: str = "development"
    token: str | None = None
    exporter: bool = True
    dir: str = "runs"
    threads: int = 1
    limits: Limits = Limits()
