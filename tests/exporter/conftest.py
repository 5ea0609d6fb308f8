import gzip
import http.client
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import eventually, prometheus

from liquid_telemetry.spool import exporter_address, is_locked, start_exporter, wait_exporter

__all__ = ["prometheus"]

SCRAPE = {"X-Prometheus-Scrape-Timeout-Seconds": "10"}


class Trainer:
    """A training process that holds a seat until it is told otherwise or killed."""

    def __init__(self, **record):
        self.run_id, self.model = record["run_id"], record["model_name"]
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fake_trainer.py"), json.dumps(record)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.pid = int(self.process.stdout.readline())

    def _do(self, command, argument=None):
        self.process.stdin.write(json.dumps([command, argument]) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def update(self, **changes):
        self._do("update", changes)

    def publish(self, snapshot):
        self._do("publish", snapshot)

    def beat(self, phase="batch", at=1.0, **pulse):
        self._do("beat", {"phase": phase, "at": at, **pulse})

    def release(self):
        self._do("release")

    def take(self):
        """Sit down again, as a later stage of the run does."""
        self._do("take")

    def fork(self, seconds):
        self._do("fork", seconds)

    def end(self, status, **changes):
        """Say how the run ends, and go."""
        self.update(status=status, **changes)
        self.close()

    def kill(self):
        self.process.kill()
        self.close()

    def crash(self, code):
        self._do("crash", code)
        self.close()

    def run(self, code):
        """Run Python code that ends the process, and leave it to the caller to collect it."""
        self._do("run", code)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Client:
    """The exporter, as its clients see it."""

    def __init__(self, spool):
        self.spool = spool
        self.pids = set()

    def start(self, host="127.0.0.1", port=0):
        start_exporter(self.spool, host, port)
        address = wait_exporter(self.spool, 10)
        assert address is not None, (self.spool / "exporter.stderr").read_text()
        self.pids.add(address.pid)
        return address

    @property
    def address(self):
        return exporter_address(self.spool)

    @property
    def counters(self):
        return json.loads((self.spool / "counters.json").read_bytes())

    def total(self, model, key):
        """Return the true total of a model, whatever scrapes see."""
        return self.counters["totals"].get(model, {}).get(key, [0])[0]

    def get(self, path, method="GET", headers=None):
        """Return status, headers and body."""
        address = self.address
        connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        return response.status, response.headers, body.decode()

    def json(self, path):
        status, _, body = self.get(path)
        return status, json.loads(body)

    def scrape(self, headers=SCRAPE):
        """Scrape as Prometheus does; return ``{name: {labels: value}}``, names without the prefix."""
        status, _, body = self.get("/metrics", headers=headers)
        assert status == 200
        found = {}
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                series = found.setdefault(sample.name.removeprefix("liquid_nn_"), {})
                labels = tuple(sorted(sample.labels.items()))
                assert labels not in series, f"{sample.name}{labels} twice"
                series[labels] = sample.value
        return found

    def peek(self):
        """Scrape as a person does, which reveals nothing."""
        return self.scrape(headers={})

    def jobs(self, metric, model, reason=None, headers=SCRAPE):
        labels = {"model_name": model, "reason": reason} if reason else {"model_name": model}
        return self.scrape(headers)[f"training_jobs_{metric}_total"][tuple(sorted(labels.items()))]

    def gone(self):
        return self.address is None

    def kill(self):
        """Kill the exporter and wait until it is gone, all its threads included."""
        self._end(self.address.pid, signal.SIGKILL)
        eventually(lambda: not is_locked(self.spool / "exporter.lock"))

    def close(self):
        for pid in self.pids:
            self._end(pid, signal.SIGKILL)

    def _end(self, pid, number):
        try:
            process = psutil.Process(pid)
            if "liquid_telemetry.exporter" in " ".join(process.cmdline()):
                process.send_signal(number)
                eventually(lambda: process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            pass


@pytest.fixture(autouse=True)
def spool(tmp_path, monkeypatch):
    """A private spool, and an exporter that is quick to act but slow to give up waiting."""
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(path))
    for name, value in {"POLL": 0.1, "GRACE": 0.3, "HOLD": 60, "LEAVE": 60, "LINGER": 30}.items():
        monkeypatch.setenv(f"LIQUID_TELEMETRY_{name}", str(value))
    return path


@pytest.fixture
def exporter(spool):
    client = Client(spool)
    yield client
    client.close()


@pytest.fixture
def trainer():
    """Start training processes: ``trainer(model_name=…, status=…)``."""
    started, numbers = [], itertools.count(1)

    def start(**record):
        record = {"run_id": f"run-{next(numbers)}", "model_name": "CfC", "status": "running", **record}
        started.append(Trainer(**record))
        return started[-1]

    yield start
    for process in started:
        if process.process.returncode is None:
            process.kill()


@pytest.fixture
def second_spool(tmp_path):
    path = tmp_path / "second"
    path.mkdir(mode=0o700)
    client = Client(path)
    yield client
    client.close()


@pytest.fixture
def snapshot():
    """Build OpenMetrics text as a trainer publishes it."""

    def build(model="CfC", loss=0.5, step=10, epoch=0, errors=(), sums=(), extra=""):
        labels = f'model_name="{model}"'
        lines = [
            "# TYPE liquid_nn_training_loss gauge",
            f'liquid_nn_training_loss{{{labels},epoch="{epoch}"}} {loss}',
            "# TYPE liquid_nn_training_global_step gauge",
            f"liquid_nn_training_global_step{{{labels}}} {step}",
            "# TYPE liquid_nn_training_batches counter",
            f'liquid_nn_training_batches_total{{{labels},stage="train"}} {step}',
            "# TYPE liquid_nn_training_batch_duration_seconds histogram",
            f'liquid_nn_training_batch_duration_seconds_bucket{{{labels},stage="train",le="0.1"}} {step} '
            '# {trace_id="abc",span_id="def"} 0.05 1700000000.5',
            f'liquid_nn_training_batch_duration_seconds_bucket{{{labels},stage="train",le="+Inf"}} {step}',
            f'liquid_nn_training_batch_duration_seconds_count{{{labels},stage="train"}} {step}',
            f'liquid_nn_training_batch_duration_seconds_sum{{{labels},stage="train"}} {step * 0.05}',
            "# TYPE liquid_nn_telemetry_errors counter",
            *(
                f'liquid_nn_telemetry_errors_total{{signal="{s}",reason="X"}} {n}'
                for s, n in dict(errors).items()
            ),
            "# TYPE liquid_nn_memory_usage_bytes gauge",
            *(f'liquid_nn_memory_usage_bytes{{component="{c}"}} {n}' for c, n in dict(sums).items()),
        ]
        return "\n".join([*lines, *filter(None, [extra]), "# EOF", ""])

    return build


@pytest.fixture
def labels():
    return lambda **pairs: tuple(sorted(pairs.items()))


@pytest.fixture
def wait():
    return eventually
