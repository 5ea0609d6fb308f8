"""The exporter's life: one per spool, from the first run to the last scrape."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

from liquid_telemetry.exporter import address
from liquid_telemetry.exporter.core import Exporter
from liquid_telemetry.exporter.faults import log
from liquid_telemetry.exporter.routes import Routes
from liquid_telemetry.exporter.server import HttpServer
from liquid_telemetry.exporter.settings import Settings
from liquid_telemetry.spool import ExporterAddress, FileLock

_LOG_BYTES = 256_000
_SAMPLE_EVERY = 10.0


def run(settings: Settings) -> int:
    """Serve until nobody needs it; return the exit status. Does nothing where an exporter lives already."""
    lock = FileLock.take(settings.spool / "exporter.lock")
    if lock is None:
        return 0
    previous = address.take_over(settings.spool)
    with _logging(settings.spool):
        while lock is not None:
            life = _Life(settings, lock)
            previous = asyncio.run(life.live(previous))
            # A run that took its seat while the lock was held did not start an exporter.
            lock = FileLock.take(lock.path, patience=0) if life.was_missed() else None
    return 0


class _Life:
    def __init__(self, settings: Settings, lock: FileLock) -> None:
        self._settings = settings
        self._lock = lock
        self._exporter = Exporter(settings)
        self._server = HttpServer(Routes(self._exporter))
        self._terminated: list[float] = []
        self._wake = asyncio.Event()

    async def live(self, previous: int | None) -> int:
        """Serve, preferably at the previous port; look; leave in good order. Returns the port."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._terminate)
        self._look()
        await self._exporter.sample_host()
        spool, host, port = self._settings.spool, self._settings.host, self._settings.port
        served = await address.bind(self._server, host, port, previous)
        log.info("pid %d serves %s at %s", served.pid, spool, served.url)
        if served.notice:
            log.warning("%s", served.notice)
        announced = False
        while not self._should_leave():
            announced = announced or _announce(spool, served)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._settings.poll)
            self._wake.clear()
            if self._exporter.trains:
                await self._exporter.sample_host(_SAMPLE_EVERY)
            self._look()
        await self._leave()
        return served.port

    def was_missed(self) -> bool:
        """Whether there is a run that this exporter has not seen to its end."""
        if self._terminated:
            return False
        records = self._settings.spool.glob("runs/[!.]*/*.json")
        return any(not self._exporter.knows(record.parent.name) for record in records)

    def _look(self) -> None:
        try:
            self._exporter.look()
        except Exception as error:  # the next look may do better; serving goes on
            self._exporter.faults.report("internal", error)

    def _terminate(self) -> None:
        self._terminated.append(time.monotonic())
        self._wake.set()

    def _should_leave(self) -> bool:
        if not self._lock.lies_on_disk():
            log.warning("the spool has been deleted")
            return True
        if self._terminated:
            waited = time.monotonic() - self._terminated[0] >= self._settings.linger
            return waited or len(self._terminated) > 1 or self._exporter.is_idle()
        return self._exporter.is_idle() and not self._settings.stay

    async def _leave(self) -> None:
        await self._server.close()
        await self._exporter.sinks.close(self._exporter.clock())
        self._exporter.close()
        if self._lock.lies_on_disk():
            with contextlib.suppress(OSError):
                address.withdraw(self._settings.spool)
        log.info("leaving")
        self._lock.release()  # here, because a thread that a dead disk holds up may delay asyncio.run()


def _announce(spool: Path, served: ExporterAddress) -> bool:
    """Name the address; False where that has to be tried again, as on a disk that is full just now."""
    try:
        address.announce(spool, served)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _logging(spool: Path) -> Iterator[None]:
    handler = RotatingFileHandler(spool / "exporter.log", maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.raiseExceptions = False  # a full disk must not fill exporter.stderr, which nothing rotates
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
