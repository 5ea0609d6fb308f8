"""The exporter process: one per spool, isolated from the training process, replaced when it dies."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psutil
import pytest

from liquid_telemetry.spool import (
    _launch,
    ensure_exporter,
    exporter_address,
    is_locked,
    start_exporter,
    wait_exporter,
)


def test_one_exporter_for_all_runs(exporter, trainer, spool):
    trainer(), trainer(model_name="LTC")
    addresses = {exporter.start().pid for _ in range(3)}
    assert len(addresses) == 1
    assert start_exporter(spool, "127.0.0.1", 0) is False


def test_two_started_at_once_leave_one(exporter, trainer, spool, wait):
    trainer()
    before = set(psutil.pids())
    assert start_exporter(spool, "127.0.0.1", 0)
    assert start_exporter(spool, "127.0.0.1", 0)
    address = exporter.start()
    ours = [pid for pid in psutil.pids() if pid not in before and _is_exporter_of(pid, spool)]
    wait(lambda: [pid for pid in ours if _is_exporter_of(pid, spool)] == [address.pid])


SLOW = """
import fcntl, json, os, sys, time
spool = sys.argv[1]
lock = open(f"{spool}/exporter.lock", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
time.sleep(1)
address = dict(url="http://127.0.0.1:2", host="127.0.0.1", port=2, pid=os.getpid())
with open(f"{spool}/new.json", "w") as file:
    json.dump(address, file)
os.rename(f"{spool}/new.json", f"{spool}/exporter.json")
time.sleep(60)
"""


def test_the_address_that_a_killed_one_left_is_not_that_of_the_next(spool, monkeypatch, wait):
    left = {"url": "http://127.0.0.1:1", "host": "127.0.0.1", "port": 1, "pid": 1}
    (spool / "exporter.json").write_text(json.dumps(left))
    monkeypatch.setattr(_launch, "_command", lambda spool, *_: [sys.executable, "-c", SLOW, str(spool)])
    assert start_exporter(spool)
    try:
        wait(lambda: is_locked(spool / "exporter.lock"))
        assert exporter_address(spool) is None
        assert wait_exporter(spool, 20).port == 2
    finally:
        for process in _launch._starting:
            process.kill()
            process.wait()


def _is_exporter_of(pid, spool):
    with contextlib.suppress(psutil.Error):
        return str(spool) in psutil.Process(pid).cmdline()
    return False


def test_two_spools_are_two_exporters(exporter, second_spool, trainer, monkeypatch):
    trainer()
    here = exporter.start()
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(second_spool.spool))
    trainer(model_name="LTC")
    there = second_spool.start()
    assert (here.pid, here.port) != (there.pid, there.port)
    assert set(exporter.scrape()["training_active"]) == {(("model_name", "CfC"),)}
    assert set(second_spool.scrape()["training_active"]) == {(("model_name", "LTC"),)}


def test_it_is_isolated_from_the_training_process(exporter, trainer, tmp_path, monkeypatch):
    """No torch, no file of the user, no secret, no descriptor, no terminal, no parent."""
    trainer_process = trainer()
    for name in ("json", "psutil", "prometheus_client", "sitecustomize", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("API_KEY", "secret")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        process = psutil.Process(exporter.start().pid)
    exporter.scrape()
    exporter.get("/health")
    exporter.get("/")
    assert "torch" not in _maps(process.pid)
    assert "secret" not in process.environ().values()
    assert process.cwd() == "/"
    assert str(tmp_path / "open") not in _descriptors(process.pid)
    assert process.terminal() is None
    assert os.getsid(process.pid) != os.getsid(0)
    assert process.ppid() != os.getpid()
    assert process.num_threads() <= 8
    trainer_process.end("completed")


def _maps(pid):
    return Path(f"/proc/{pid}/maps").read_text()


def _descriptors(pid):
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.append(str(path.readlink()))
    return found


def test_modules_it_imports():
    """Neither torch, lightning nor numpy, nor anything that only the training process needs."""
    code = "import sys, liquid_telemetry.exporter.lifecycle; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    top = {name.split(".")[0] for name in output.split()}
    third_party = {name for name in top if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert {"liquid_telemetry", "prometheus_client", "psutil"} <= third_party
    assert not third_party & {
        "torch",
        "lightning",
        "pytorch_lightning",
        "numpy",
        "structlog",
        "opentelemetry",
        "rich",
    }


def test_starting_leaves_no_child_no_descriptor_and_no_warning(exporter, trainer, spool):
    trainer()
    children, descriptors = set(psutil.Process().children()), set(_descriptors(os.getpid()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exporter.start()
        ensure_exporter(spool)
    assert not caught
    assert set(psutil.Process().children()) == children
    assert set(_descriptors(os.getpid())) == descriptors


def test_ctrl_c_on_the_terminal_does_not_reach_it(spool, exporter):
    """The trainer gets SIGINT with its whole process group, as from a terminal."""
    code = (
        "import os, signal\n"
        "from liquid_telemetry.spool import *\n"
        "spool = spool_dir()\n"
        "RunSeat.take(spool, RunRecord('run', 'CfC', status='running'))\n"
        "start_exporter(spool, port=0)\n"
        "wait_exporter(spool)\n"
        "os.killpg(0, signal.SIGINT)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], start_new_session=True, capture_output=True)
    assert ended.returncode == -signal.SIGINT
    exporter.pids.add(exporter.address.pid)
    assert exporter.jobs("interrupted", "CfC", "user") == 0
    assert exporter.jobs("interrupted", "CfC", "user") == 1


def test_address_is_told_everywhere(exporter, trainer, spool):
    trainer()
    address = exporter.start()
    assert address.url == f"http://127.0.0.1:{address.port}"
    assert json.loads((spool / "targets.json").read_text()) == [
        {"targets": [f"127.0.0.1:{address.port}"], "labels": {}}
    ]
    assert address.notice is None
    assert address.remark("127.0.0.1", 0) is None
    assert address.remark("127.0.0.1", address.port) is None
    assert address.remark("127.0.0.1", 1) == (
        f"the exporter already serves at {address.url}; host='127.0.0.1', port=1 wait until it has left"
    )


def test_port_taken_by_another_program(exporter, trainer, spool):
    trainer()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        address = exporter.start(port=port)
    assert address.port != port
    assert address.notice == (
        f"127.0.0.1:{port} cannot be had (address already in use); serving at http://127.0.0.1:{address.port}"
    )
    assert address.remark("127.0.0.1", port) == address.notice
    assert exporter.get("/live")[0] == 200
    assert address.notice in (spool / "exporter.log").read_text()


@pytest.mark.parametrize(
    ("host", "reason"), [("192.0.2.1", "cannot assign requested address"), ("no.such.host.invalid", "name")]
)
def test_host_that_cannot_be_had_becomes_the_loopback(exporter, trainer, host, reason):
    trainer()
    address = exporter.start(host=host)
    assert address.host == "127.0.0.1"
    assert address.notice.startswith(f"{host}:0 cannot be had (")
    assert reason in address.notice
    assert "unknown error" not in address.notice
    assert exporter.get("/live")[0] == 200


def test_every_interface_is_reached_through_the_loopback(exporter, trainer):
    trainer()
    address = exporter.start(host="0.0.0.0")
    assert address.url == f"http://127.0.0.1:{address.port}"
    assert exporter.get("/live")[0] == 200


def test_killed_exporter_is_replaced_at_its_address(exporter, trainer, spool, snapshot, labels):
    job = trainer()
    job.publish(snapshot(loss=0.5))
    first = exporter.start()
    assert exporter.jobs("started", "CfC") == 0
    assert exporter.jobs("started", "CfC") == 1
    exporter.kill()
    assert exporter_address(spool) is None
    assert ensure_exporter(spool, "127.0.0.1", 0, every=0)
    second = wait_exporter(spool)
    exporter.pids.add(second.pid)
    assert second.pid != first.pid
    assert second.port == first.port
    found = exporter.scrape()
    assert found["training_loss"] == {labels(model_name="CfC", epoch="0"): 0.5}
    assert found["training_jobs_started_total"] == {labels(model_name="CfC"): 1}
    job.kill()
    assert exporter.jobs("failed", "CfC", "killed") == 1


def test_ensure_looks_only_now_and_then(trainer, spool, exporter):
    trainer()
    exporter.start()
    exporter.kill()
    assert ensure_exporter(spool, "127.0.0.1", 0, every=0)
    exporter.pids.add(wait_exporter(spool).pid)
    exporter.kill()
    assert not ensure_exporter(spool, "127.0.0.1", 0, every=3600)


def test_trainer_and_exporter_killed_together_are_counted_by_the_next(exporter, trainer, spool):
    first = trainer()
    exporter.start()
    exporter.scrape()
    exporter.kill()
    first.kill()
    trainer()
    exporter.start()
    assert [exporter.jobs("failed", "CfC", "unknown") for _ in range(2)] == [0, 1]
    assert not is_locked(spool / "runs" / "run-1" / "0.lock")


def test_killed_after_counting_and_before_the_scrape(exporter, trainer, wait):
    """The next exporter begins with what scrapes had seen, not with the truth."""
    job = trainer()
    exporter.start()
    job.kill()
    wait(lambda: exporter.counters["totals"]["CfC"]["failed/killed"] == [1, 0])
    exporter.kill()
    trainer(model_name="LTC")
    exporter.start()
    assert [exporter.jobs("failed", "CfC", "killed") for _ in range(3)] == [0, 1, 1]


def test_deleted_spool(exporter, trainer, spool, wait, snapshot, labels):
    """Everything is rebuilt by the next write and the next look."""
    job = trainer()
    first = exporter.start()
    subprocess.run(["rm", "-rf", str(spool)], check=True)
    wait(
        lambda: not psutil.pid_exists(first.pid) or psutil.Process(first.pid).status() == psutil.STATUS_ZOMBIE
    )
    job.publish(snapshot())
    assert ensure_exporter(spool, "127.0.0.1", 0, every=0)
    exporter.pids.add(wait_exporter(spool).pid)
    assert exporter.scrape()["training_active"] == {labels(model_name="CfC"): 1}


def test_damaged_counters_begin_anew(exporter, trainer, spool, labels):
    (spool / "counters.json").write_text('{"totals": {"CfC": {"started/": "x"}}}')
    trainer()
    exporter.start()
    found = exporter.scrape()
    assert found["telemetry_errors_total"][labels(signal="exporter", reason="counters")] == 1
    assert exporter.jobs("started", "CfC") == 1
    assert (spool / "counters.damaged").exists()


def test_damaged_record_is_set_aside_and_counted_once(exporter, trainer, spool, labels):
    damaged = spool / "runs" / "other"
    damaged.mkdir(parents=True)
    (damaged / "0.json").write_text("{")
    job = trainer()
    exporter.start()
    (spool / "runs" / job.run_id / "0.json").write_text("[]")
    for _ in range(3):
        found = exporter.scrape()
    assert found["telemetry_errors_total"][labels(signal="exporter", reason="record")] == 2
    assert found["training_active"] == {labels(model_name="CfC"): 1}
    job.kill()
    assert exporter.jobs("failed", "CfC", "killed") == 1


def test_hundreds_of_stale_runs(exporter, trainer, spool, wait):
    """All counted, one shown, none left behind."""
    for number in range(600):
        directory = spool / "runs" / f"stale-{number}"
        directory.mkdir(parents=True)
        (directory / "0.lock").touch()
        record = {"run_id": directory.name, "model_name": "CfC", "status": "running", "started": number}
        (directory / "0.json").write_text(json.dumps(record))
    live = trainer()
    exporter.start()
    wait(lambda: len(list((spool / "runs").iterdir())) == 1)
    assert [exporter.jobs("failed", "CfC", "unknown") for _ in range(3)] == [0, 600, 600]
    assert set(exporter.scrape()["training_active"]) == {(("model_name", "CfC"),)}
    assert len(exporter.counters["runs"]) <= 501
    live.end("completed")


def test_stay_serves_without_runs(spool, wait, exporter):
    command = [sys.executable, "-m", "liquid_telemetry.exporter", "--port", "0", "--stay"]
    process = subprocess.Popen(command)
    try:
        address = wait(lambda: exporter_address(spool))
        assert address.pid == process.pid
        deadline = time.monotonic() + 1
        wait(lambda: exporter.get("/live")[0] == 200 and time.monotonic() > deadline)
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
