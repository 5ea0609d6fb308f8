"""The rules and the Alertmanager configuration as they are shipped, beside real servers."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import yaml
from servers import binary, eventually, free_port, prometheus

from liquid_telemetry.signals import (
    FAILURE_REASONS,
    INTERRUPTION_REASONS,
    JOB_STATES,
    METRICS,
    PHASES,
    STAGES,
)

__all__ = ["prometheus"]

MONITORING = Path(__file__).parents[2] / "monitoring"
RULES = MONITORING / "prometheus" / "alerts.yml"
ROUTES = MONITORING / "alertmanager" / "alertmanager.yml"
RUNBOOKS = MONITORING / "runbooks"


@pytest.fixture(scope="session")
def rules() -> list[dict[str, Any]]:
    """Every rule of ``alerts.yml``."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="session")
def alerts(rules: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The alerts among them, by name."""
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


_SERIES = {
    metric.full_name + suffix: metric
    for metric in METRICS.values()
    for suffix in (("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",))
}
_ADDED = {"job", "instance"}
_VALUES = {
    "state": JOB_STATES,
    "phase": PHASES,
    "stage": STAGES,
    "reason": (*FAILURE_REASONS, *INTERRUPTION_REASONS),
    "dataset": ("train", "val", "test"),
    "component": ("process", "workers", "system", "cuda_allocated", "cuda_reserved"),
    "signal": ("metrics", "tracing", "logging", "exporter"),
}
_NAME = re.compile(r"\b(liquid_nn[_:][\w:]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')


def unknown_names(text: str, recorded: set[str]) -> list[str]:
    """Return the metrics, labels and label values in PromQL that neither the catalogue nor a rule has."""
    wrong = []
    for name, matchers in _NAME.findall(text):
        metric = _SERIES.get(name)
        if metric is None:
            wrong += [] if name in recorded else [name]
            continue
        labels = {*metric.labels, *_ADDED, *(("model_name", "slot") if metric.model_labelled else ())}
        if metric.type == "histogram":
            labels.add("le")
        for label, value in _MATCHER.findall(matchers):
            known = _VALUES.get(label) if not name.startswith("liquid_nn_telemetry") else None
            values = re.split(r"[|]", value) if known else ()
            wrong += [f"{name}{{{label}}}"] if label not in labels else []
            wrong += [f"{name}{{{label}={one}}}" for one in values if one not in (known or ())]
    return wrong


@pytest.fixture(scope="session")
def unknown(rules: list[dict[str, Any]]) -> Callable[[str], list[str]]:
    """Find the names in PromQL that do not exist."""
    recorded = {rule["record"] for rule in rules if "record" in rule}
    return lambda text: unknown_names(text, recorded)


@pytest.fixture
def tool() -> Callable[..., str]:
    """Run a program that must succeed; returns what it prints."""

    def run(name: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [binary(name), *map(str, arguments)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


class Inbox:
    """Takes what Alertmanager posts: ``(path, Authorization, body)``."""

    def __init__(self) -> None:
        self._posts: Queue[tuple[str, str, Any]] = Queue()
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                inbox._posts.put((self.path, self.headers.get("Authorization", ""), body))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.received: list[tuple[str, str, Any]] = []

    def get(self, path: str) -> tuple[str, Any]:
        """Wait for the next post to a path; what comes before it stays in ``received``."""
        while True:
            post = self._posts.get(timeout=30)
            self.received.append(post)
            if post[0] == path:
                return post[1:]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    yield made
    made.close()


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, *alerts: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts",
            json.dumps(alerts).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).close()

    def alerts(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as response:
            found: list[dict[str, Any]] = json.load(response)
        return found

    def is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=5).close()
        except OSError:
            return False
        return True


@pytest.fixture
def alertmanager(tmp_path: Path, inbox: Inbox) -> Iterator[Alertmanager]:
    """The shipped configuration, its secrets in files, the pager and Slack at the inbox, and no patience."""
    home = tmp_path / "alertmanager"
    (home / "secrets").mkdir(parents=True)
    for name, secret in {
        "smtp_password": "p",
        "slack_url": f"{inbox.url}/slack",
        "pager_token": "t0ken",
    }.items():
        (home / "secrets" / name).write_text(secret)
    text, places = re.subn(r"http://127\.0\.0\.1:9095/alerts", f"{inbox.url}/pager", ROUTES.read_text())
    text, times = re.subn(r"group_wait: \w+", "group_wait: 1s", text)
    text, servers = re.subn("smtp.example.org:587", f"127.0.0.1:{free_port()}", text)
    text, secrets = re.subn("/etc/alertmanager/secrets", str(home / "secrets"), text)
    assert (places, times, servers, secrets) == (1, 1, 1, 3)
    (home / "alertmanager.yml").write_text(text)
    port = free_port()
    command = [
        binary("prometheus-alertmanager"),
        f"--config.file={home / 'alertmanager.yml'}",
        f"--storage.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = Alertmanager(f"http://127.0.0.1:{port}")
    try:
        eventually(server.is_ready)
        yield server
    finally:
        process.terminate()
        process.wait(20)
