"""Servers of trained models: in a thread of the test's own process, or as the command."""

import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import httpx

from liquid_train.serve.model import Model
from liquid_train.serve.run import Uvicorn, listen
from liquid_train.serve.settings import Limits, Settings
from liquid_train.serve.telemetry import Deployment, ServeTelemetry

COMMAND = [sys.executable, "-m", "liquid_train", "serve"]


@contextmanager
def serving(checkpoint, change=None, **options):
    """Serve a checkpoint in a thread; ``change`` gets the model first. Yields its address and what it consists of."""
    limits = Limits(**{name: options.pop(name) for name in list(options) if hasattr(Limits, name)})
    settings = Settings(str(checkpoint), port=0, exporter=False, limits=limits, **options)
    model = Model.load(settings.checkpoint)
    if change is not None:
        change(model)
    telemetry = ServeTelemetry(model, settings, Deployment(model.version, time.time_ns()))
    listener = listen(settings.host, 0, limits)
    server = Uvicorn(model, settings, telemetry, listener)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=30, headers={"connection": "close"}) as client:
            yield SimpleNamespace(url=url, client=client, model=model, telemetry=telemetry, server=server)
    finally:
        server.should_exit = True
        thread.join(40)
        telemetry.ended("closed")
        listener.close()
    assert not thread.is_alive()


@contextmanager
def command(*arguments, code=143):
    """The command as a process, ended by SIGTERM unless it has ended."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*COMMAND, "--port=0", *map(str, arguments)], stdout=subprocess.PIPE, stderr=log, text=True
        )

        def told():
            log.seek(0)
            return log.read()

        try:
            said = process.stdout.readline()
            found = re.search(r"http://\S+", said)
            assert found, said + told()
            yield SimpleNamespace(url=found[0], process=process, told=told)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == code, told()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def asked(series, timespans=None, lengths=None):
    """The body of a request."""
    body = {"values": series, "timespans": timespans, "lengths": lengths}
    return {name: value for name, value in body.items() if value is not None}
