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

    def start(*, targets: Path, interval="500ms", rules=None, honor_labels=False):
        home = tmp_path / f"prometheus-{len(started)}"
        home.mkdir()
        config = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": [str(rules)] if rules else [],
            "scrape_configs": [
                {
                    "job_name": "liquid-train",
                    "honor_labels": honor_labels,
                    "file_sd_configs": [{"files": [str(targets)]}],
                }
            ],
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


@dataclass
class Metrics:
    """A server that shows metrics: what it has, and a ``file_sd`` list that names it."""

    url: str
    targets: Path

    @property
    def text(self):
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:
            return response.read().decode()

    @property
    def lines(self):
        """What is ours of it."""
        return [line for line in self.text.splitlines() if line.startswith("liquid_nn_")]


@pytest.fixture
def pushgateway(tmp_path):
    """A Pushgateway."""
    folder = tmp_path / "pushgateway"  # Debian's build keeps its groups in a file, unless told which
    options = [f"--persistence.file={folder / 'groups'}"]
    yield from _serve_metrics(binary("prometheus-pushgateway"), folder, *options)


@pytest.fixture
def node_exporter(tmp_path):
    """A node_exporter that reads the directory ``textfile`` beside its list of targets and does nothing else."""
    folder = tmp_path / "node-exporter"
    (folder / "textfile").mkdir(parents=True)
    options = ["--collector.disable-defaults", "--collector.textfile"]
    options.append(f"--collector.textfile.directory={folder / 'textfile'}")
    yield from _serve_metrics(binary("prometheus-node-exporter"), folder, *options)


def _serve_metrics(program, folder, *options):
    folder.mkdir(exist_ok=True)
    port, log = free_port(), folder / "log"
    with log.open("wb") as output:
        command = [program, f"--web.listen-address=127.0.0.1:{port}", *options]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    server = Metrics(f"http://127.0.0.1:{port}", folder / "targets.json")
    server.targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}"], "labels": {}}]))
    try:
        eventually(lambda: _is_ready(server, process, log, path="/metrics"))
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _is_ready(server, process, log, path="/-/ready"):
    assert process.poll() is None, log.read_text()
    try:
        with urllib.request.urlopen(f"{server.url}{path}", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
