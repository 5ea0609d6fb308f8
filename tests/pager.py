"""Prometheus and Alertmanager with the files as they are shipped, and an inbox for what they send."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

from servers import Prometheus, binary, eventually, free_port

MONITORING = Path(__file__).parents[1] / "monitoring"


class Post(NamedTuple):
    """What came, and when, in unix seconds."""

    path: str
    authorization: str
    body: Any
    time: float


class Inbox:
    """Takes what Alertmanager posts."""

    def __init__(self) -> None:
        self._new: Queue[Post] = Queue()
        self.received: list[Post] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                post = Post(self.path, self.headers.get("Authorization", ""), body, time.time())
                inbox.received.append(post)
                inbox._new.put(post)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def get(self, path: str) -> tuple[str, Any]:
        """Wait for the next post to a path; returns its authorization and its body."""
        while True:
            post = self._new.get(timeout=30)
            if post.path == path:
                return post.authorization, post.body

    def close(self) -> None:
        """Take nothing more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, *alerts: dict[str, Any]) -> None:
        """Send alerts as Prometheus does."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts",
            json.dumps(alerts).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).close()

    def alerts(self) -> list[dict[str, Any]]:
        """Every alert it has."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as response:
            found: list[dict[str, Any]] = json.load(response)
        return found

    def is_ready(self) -> bool:
        """Whether it serves."""
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=5).close()
        except OSError:
            return False
        return True


@contextmanager
def alertmanager(home: Path, inbox: Inbox, *, group_wait: str = "1s") -> Iterator[Alertmanager]:
    """The shipped configuration: its secrets in files, the pager and Slack at the inbox.

    Args:
        home: A new directory.
        inbox: Where the pager and Slack are.
        group_wait: How patient it is.
    """
    (home / "secrets").mkdir(parents=True)
    secrets = {"smtp_password": "p", "slack_url": f"{inbox.url}/slack", "pager_token": "t0ken"}
    for name, secret in secrets.items():
        (home / "secrets" / name).write_text(secret)
    text = (MONITORING / "alertmanager" / "alertmanager.yml").read_text()
    for pattern, new, times in [
        (r"http://127\.0\.0\.1:9095/alerts", f"{inbox.url}/pager", 1),
        (r"group_wait: \w+", f"group_wait: {group_wait}", 1),
        (r"smtp\.example\.org:587", f"127.0.0.1:{free_port()}", 1),
        ("/etc/alertmanager/secrets", str(home / "secrets"), 3),
    ]:
        text, found = re.subn(pattern, new, text)
        assert found == times, pattern
    (home / "alertmanager.yml").write_text(text)
    port = free_port()
    options = [
        f"--config.file={home / 'alertmanager.yml'}",
        f"--storage.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    server = Alertmanager(f"http://127.0.0.1:{port}")
    with _running("prometheus-alertmanager", options, home / "log"):
        eventually(server.is_ready)
        yield server


@contextmanager
def shipped_prometheus(
    home: Path,
    exporter_port: int,
    alerts_to: Alertmanager,
    *,
    interval: str | None = "1s",
    spools: Sequence[Path] = (),
    patience: str | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> Iterator[Prometheus]:
    """The shipped configuration and rules.

    Args:
        home: A new directory.
        exporter_port: Of the exporter at the usual address.
        alerts_to: Where alerts go.
        interval: Between scrapes, and between evaluations of the rules; None as shipped.
        spools: Whose ``targets.json`` are read as well; :func:`link` adds others later.
        patience: Of every alert (``for``); None as shipped.
        thresholds: By name, in place of those that are shipped.
    """
    (home / "targets").mkdir(parents=True)
    for spool in spools:
        link(home, spool)
    rules = (MONITORING / "prometheus" / "alerts.yml").read_text()
    if patience is not None:
        rules = re.sub(r"\bfor: \w+", f"for: {patience}", rules)
    for name, value in (thresholds or {}).items():
        rules, times = re.subn(rf"(:{name} .*\n\s+expr: vector)\(.*\)", rf"\1({value})", rules)
        assert times == 1, name
    (home / "alerts.yml").write_text(rules)
    port = free_port()
    text = (MONITORING / "prometheus" / "prometheus.yml").read_text()
    for old, new in {"9464": exporter_port, "9093": alerts_to.url.rpartition(":")[2], "9090": port}.items():
        text, times = re.subn(rf"127\.0\.0\.1:{old}\b", f"127.0.0.1:{new}", text)
        assert times, old
    if interval is not None:
        text = re.sub(r"_(interval|timeout): \w+", rf"_\1: {interval}", text)
    (home / "prometheus.yml").write_text(text)
    options = [
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    server = Prometheus(f"http://127.0.0.1:{port}")
    with _running("prometheus", options, home / "log"):
        eventually(lambda: _all_up(server))
        yield server


def link(home: Path, spool: Path) -> None:
    """Let the Prometheus of ``home`` scrape the exporter of a spool."""
    links = home / "targets"
    (links / f"{sum(1 for _ in links.iterdir())}.json").symlink_to(spool / "targets.json")


def _all_up(server: Prometheus) -> bool:
    try:
        targets = server.get("/api/v1/targets")["activeTargets"]
    except OSError:
        return False
    return bool(targets) and all(target["health"] == "up" for target in targets)


@contextmanager
def _running(program: str, options: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen([binary(program), *options], stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)
