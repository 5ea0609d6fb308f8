"""Two nodes, each with its own spool and exporter, and where that is possible a network of its own."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import eventually, free_port
from tiny import Written, read_spans

from liquid_telemetry.signals import PREFIX
from liquid_telemetry.spool import exporter_address, wait_exporter

SCRIPT = Path(__file__).parent / "scripts" / "train.py"
READ = "import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


class Node:
    """A machine: how commands are run on it, and its spool."""

    def __init__(self, number, folder, master, interface="lo", prefix=()):
        self.number, self.prefix, self.spool = number, list(prefix), folder / f"node-{number}"
        self.environment = {
            **os.environ,
            "NODE_RANK": str(number),
            "LOCAL_RANK": "0",
            "MASTER_ADDR": master,
            "MASTER_PORT": str(free_port()) if not prefix else "29500",
            "GLOO_SOCKET_IFNAME": interface,
            "LIQUID_TELEMETRY_SPOOL": str(self.spool),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def start(self, *command):
        return subprocess.Popen(
            [*self.prefix, sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )

    def metrics(self):
        """What its exporter serves, read on the node itself."""
        process = self.start("-c", READ, wait_exporter(self.spool, 20).url + "/metrics")
        text, _ = process.communicate(timeout=30)
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        return {one.name.removeprefix(PREFIX): one.labels for one in samples if one.value}

    def counted(self):
        path = self.spool / "counters.json"
        totals = json.loads(path.read_text())["totals"] if path.exists() else {}
        return {key: total for key, (total, _) in totals.get("Model", {}).items() if total}

    def stop(self):
        if (address := exporter_address(self.spool)) is not None:
            process = psutil.Process(address.pid)
            process.kill()
            eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def _ip(*words):
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0


def _wire(names, stack):
    """Make two networks that reach each other by one wire; False where that is not allowed."""
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    for name in names:
        if not _ip("netns", "add", name):
            return False
        stack.callback(_ip, "netns", "del", name)
    made = [
        _ip(
            "link",
            "add",
            "wire",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            "wire",
            "netns",
            names[1],
        )
    ]
    for number, name in enumerate(names, 1):
        made.append(_ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "wire"))
        made += [_ip("-n", name, "link", "set", device, "up") for device in ("wire", "lo")]
    return all(made)


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    for name, value in {"POLL": 0.1, "GRACE": 0.5, "HOLD": 60, "LEAVE": 60}.items():
        monkeypatch.setenv(f"LIQUID_TELEMETRY_{name}", str(value))
    with ExitStack() as stack:
        names = [f"lt-{os.getpid()}-{number}" for number in range(2)]
        if _wire(names, stack):
            made = [
                Node(number, tmp_path, "10.77.0.1", "wire", ["ip", "netns", "exec", name])
                for number, name in enumerate(names)
            ]
        else:
            made = [Node(number, tmp_path, "127.0.0.1") for number in range(2)]
            made[1].environment["MASTER_PORT"] = made[0].environment["MASTER_PORT"]
        for node in made:
            stack.callback(node.stop)
        yield made


@pytest.mark.slow
def test_two_nodes_are_one_run(nodes, tmp_path):
    port = 9464 if nodes[0].prefix else 0
    options = json.dumps({"strategy": "ddp", "devices": 1, "nodes": 2, "port": port})
    processes = [node.start(SCRIPT, options) for node in nodes]
    said = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    (folder,) = (tmp_path / "runs").iterdir()
    run = Written(folder, nodes[0].spool)
    assert eventually(lambda: nodes[0].counted() == {"started/": 1, "completed/": 1}, 30)
    served = [node.metrics() for node in nodes]
    if port:
        assert [exporter_address(node.spool).port for node in nodes] == [9464, 9464]
    for labels in (found["training_info"] for found in served):
        assert (labels["run_id"], labels["world_size"]) == (folder.name, "2")
    assert "training_loss" in served[0]
    assert "training_loss" not in served[1]
    assert nodes[1].counted() == {}
    spans = [*run.spans, *read_spans(folder / "traces.rank1.jsonl")]
    assert {span["traceId"] for span in spans} == {run.manifest["trace_id"]}
    assert (folder / "events.rank1.jsonl").exists()
