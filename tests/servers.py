"""Real servers for tests: a missing one skips on a laptop, with the reason, and fails in CI."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest


def binary(name):
    """Return the path of a server's program."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian: apt-get install {name})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(check, timeout=20.0):
    """Return the first true answer of ``check``; the last answer's text explains a timeout."""
    deadline = time.monotonic() + timeout
    while not (answer := check()):
        assert time.monotonic() < deadline, f"still {answer!r} after {timeout} s"
        time.sleep(0.05)
    return answer


@dataclass
class Prometheus:
    """A running Prometheus server."""

    url: str

    def get(self, path, **parameters):
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def query(self, expression):
        """Return the instant vector of an expression as ``{labels: value}``, labels without ``__name__``."""
        result = self.get("/api/v1/query", query=expression)["result"]
        return {_labels(sample["metric"]): float(sample["value"][1]) for sample in result}

    def samples(self, selector, minutes=10):
        """Return every raw sample of a selector as ``{labels: [value, …]}``."""
        result = self.get("/api/v1/query", query=f"{selector}[{minutes}m]")["result"]
        return {
            _labels(series["metric"]): [float(value) for _, value in series["values"]] for series in result
        }


def _labels(metric):
    dropped = ("__name__", "instance", "job")
    return tuple(sorted((name, value) for name, value in metric.items() if name not in dropped))


@pytest.fixture
def prometheus(tmp_path):
    """Start Prometheus servers: ``prometheus(targets=FILE)`` scrapes a ``file_sd`` list every half second."""
    program, started = binary("prometheus"), []

    def start(*, targets: Path, interval="500ms", rules=None):
        home = tmp_path / f"prometheus-{len(started)}"
        home.mkdir()
        config = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": [str(rules)] if rules else [],
            "scrape_configs": [{"job_name": "liquid-train", "file_sd_configs": [{"files": [str(targets)]}]}],
        }
        (home / "prometheus.yml").write_text(json.dumps(config))
        port = free_port()
        command = [
            program,
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]
        with (home / "log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        server = Prometheus(f"http://127.0.0.1:{port}")
        eventually(lambda: _is_ready(server, started[-1], home / "log"))
        return server

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(20)


def _is_ready(server, process, log):
    assert process.poll() is None, log.read_text()
    try:
        with urllib.request.urlopen(f"{server.url}/-/ready", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
