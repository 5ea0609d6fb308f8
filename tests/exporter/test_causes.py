"""How a process ended that is not the exporter's child, and why."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import eventually

from liquid_telemetry.exporter import exit_status, memory_kills
from liquid_telemetry.exporter.exit_status import Exit, ExitWatch
from liquid_telemetry.exporter.memory_kills import MemoryKills
from liquid_telemetry.exporter.process import Process
from liquid_telemetry.memory import _children, memory_of
from liquid_telemetry.spool import RunRecord, identity

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pidfd and /proc are Linux'")

ENDS = [
    ("os._exit(3)", "failed/exited", "exited with code 3"),
    ("os._exit(0)", "failed/exited", "exited with code 0"),
    ("sys.exit(4)", "failed/exited", "exited with code 4"),
    ("raise MemoryError", "failed/exited", "exited with code 1"),
    ("sys.exit(143)", "interrupted/terminated", "exited with code 143"),
    ("import ctypes; ctypes.string_at(0)", "failed/crashed", "killed by signal 11 (SIGSEGV)"),
    ("os.abort()", "failed/crashed", "killed by signal 6 (SIGABRT)"),
    *(
        (f"import signal; signal.signal({number}, 0); os.kill(os.getpid(), {number}); time.sleep(60)", key, text)
        for number, key, text in (
            (1, "failed/killed", "killed by signal 1 (SIGHUP)"),
            (2, "interrupted/user", "killed by signal 2 (SIGINT)"),
            (15, "interrupted/terminated", "killed by signal 15 (SIGTERM)"),
        )
    ),
    ("os.kill(os.getpid(), 9)", "failed/killed", "killed by signal 9 (SIGKILL)"),
]  # fmt: skip


@pytest.mark.parametrize("collected", [True, False], ids=["collected", "zombie"])
def test_the_end_of_a_process_is_counted_by_its_cause(exporter, trainer, wait, collected):
    """All at once: each run is another model."""
    jobs = [trainer(model_name=f"M{n}", epoch=1, batch=n) for n in range(len(ENDS))]
    exporter.start()
    exporter.scrape()
    for job, (code, _, _) in zip(jobs, ENDS, strict=True):
        job.run(code)
        if collected:
            job.close()
    for n, (code, key, text) in enumerate(ENDS):
        wait(lambda: any(exporter.total(f"M{n}", f"{kind}/{reason}") for kind, reason in REASONS))  # noqa: B023
        assert exporter.total(f"M{n}", key) == 1, (code, exporter.counters["totals"][f"M{n}"])
        found = exporter.counters["runs"][jobs[n].run_id]["outcome"]
        assert (found["text"], found["known_by"]) == (f"{text} in epoch 1, batch {n}", "exit status")
    shown = {run["model"]: run for run in exporter.json("/api/runs")[1]["runs"]}
    assert [(shown[name]["state"], shown[name]["reason"]) for name in ("M5", "M10")] == [
        ("failed", "crashed"),
        ("failed", "killed"),
    ]
    assert shown["M10"]["end"] == "killed by signal 9 (SIGKILL) in epoch 1, batch 10"
    report = exporter.json(f"/health?run={jobs[5].run_id}")[1]
    assert report["reason"] == "training: failed (crashed): killed by signal 11 (SIGSEGV) in epoch 1, batch 5"


REASONS = [key.split("/") for key in sorted({key for _, key, _ in ENDS} | {"failed/unknown"})]


def test_a_pid_that_is_another_process_by_now_tells_nothing(exporter, trainer, wait):
    """As is the pid of a trainer in a PID namespace of its own."""
    job = trainer(model_name="A")
    job.update(identity="another boot pid:[1] 7")
    exporter.start()
    exporter.scrape()
    job.kill()
    wait(lambda: exporter.total("A", "failed/unknown") == 1)
    found = exporter.counters["runs"][job.run_id]["outcome"]
    assert (found["text"], found["known_by"]) == ("the process ended without a word", "nothing")


def test_what_the_parent_tells_of_a_spawned_process(exporter, trainer, wait, spool):
    job = trainer(spawned=True, model_name="A")
    job.update(spawned=True)
    exporter.start()
    exporter.scrape()
    job.update(reason="user", error_type="KeyboardInterrupt")
    job.crash(0)
    wait(lambda: exporter.total("A", "interrupted/user") == 1)


def test_a_run_is_not_said_to_have_completed_while_its_death_is_undecided(
    exporter, trainer, wait, monkeypatch
):
    """The parent of a spawned process may tell more, and is waited for."""
    monkeypatch.setenv("LIQUID_TELEMETRY_GRACE", "60")
    job = trainer(model_name="A")
    job.update(spawned=True)
    exporter.start()
    job.crash(1)
    wait(lambda: exporter.json("/api/runs")[1]["runs"][0]["live"] is False)
    scrape = exporter.peek()
    states = {dict(labels)["state"]: value for labels, value in scrape["training_job_state"].items()}
    assert [state for state, value in states.items() if value] == ["running"]
    assert scrape["training_active"] == {(("model_name", "A"),): 1}
    assert exporter.json(f"/health?run={job.run_id}")[1]["components"]["training"]["state"] == "running"


@pytest.fixture
def child():
    """Start a process that waits for the end of its stdin, then runs some code."""
    started = []

    def start(code="pass"):
        command = [sys.executable, "-S", "-c", f"import os, sys; print(flush=True); sys.stdin.read(); {code}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        for stream in (process.stdin, process.stdout):
            stream.close()
        process.wait()


def watched(process):
    return ExitWatch(process.pid, identity(process.pid))


def test_an_exit_is_known_only_when_there_is_one(child):
    process = child("os._exit(5)")
    watch = watched(process)
    watch.look()
    assert (watch.found, watch.settled) == (None, False)
    process.communicate()
    watch.look()
    assert (watch.found, watch.settled) == (Exit(code=5), True)


@pytest.mark.parametrize("collected", [True, False])
def test_without_a_descriptor_only_a_zombie_tells(child, monkeypatch, collected):
    monkeypatch.setattr(exit_status, "MAX_OPEN", 0)
    process = child("os._exit(5)")
    watch = watched(process)
    watch.look()
    assert not watch.settled
    if collected:
        process.communicate()
    else:
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    watch.look()
    assert (watch.found, watch.settled) == (None if collected else Exit(code=5), True)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_are_bounded_and_given_back(child, monkeypatch):
    count = open_files()
    process = child()
    monkeypatch.setattr(exit_status, "MAX_OPEN", exit_status._open + 2)
    opened = open_files()
    watches = [watched(process) for _ in range(5)]
    assert open_files() == opened + 2
    watches.pop(0).close()
    watches.clear()
    ExitWatch(process.pid, "another").look()
    assert open_files() == opened
    assert opened == count + 2


def test_a_process_that_gives_up_its_seat_but_lives_is_not_settled(child):
    process = child()
    seen = Process()
    record = RunRecord("run", "CfC", pid=process.pid, identity=identity(process.pid))
    seen.look(record, alive=True)
    seen.look(record, alive=False)
    assert (seen.exit, seen.settled) == (None, False)
    seen.look(record, alive=True)
    process.kill()
    process.communicate()
    seen.look(record, alive=False)
    assert (seen.exit, seen.settled) == (Exit(signal=9), True)


def test_an_event_loop_notes_the_moment_of_the_end(child):
    process = child()

    async def watch_it():
        watch = watched(process)
        before = time.time()
        process.kill()
        while watch.ended is None:
            await asyncio.sleep(0.001)
        assert before <= watch.ended <= time.time()
        closed, other = watched(process), watched(process)
        closed.close()
        del other
        watch.look()
        return watch

    assert asyncio.run(watch_it()).found == Exit(signal=9)


EVENTS = "low 0\nhigh 0\nmax 5\noom 1\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.fixture
def counter(tmp_path, monkeypatch):
    """The kernel's counters, as files: ``write(version, count)``."""
    groups, vmstat = tmp_path / "cgroup", tmp_path / "vmstat"
    monkeypatch.setattr(memory_kills, "CGROUPS", groups)
    monkeypatch.setattr(memory_kills, "VMSTAT", vmstat)
    files = {
        "v2": (groups / "memory.events", EVENTS),
        "v1": (groups / "memory" / "memory.oom_control", CONTROL),
        "host": (vmstat, "nr_free_pages 5\noom_kill {}\n"),
    }

    def write(version, count):
        path, text = files[version]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(count))
        return path

    return write


@pytest.mark.parametrize("version", ["v2", "v1", "host"])
def test_a_kill_that_a_counter_explains(child, counter, version):
    for kills, expected in ((0, False), (1, True)):
        counter(version, 3)
        process, seen = child(), Process()
        record = RunRecord("run", "CfC", pid=process.pid, identity=identity(process.pid))
        seen.look(record, alive=True)
        counter(version, 3 + kills)
        process.kill()
        process.communicate()
        seen.look(record, alive=False)
        assert (seen.exit, seen.out_of_memory) == (Exit(signal=signal.SIGKILL), expected)


def test_the_group_of_the_process_counts_before_the_host(child, counter):
    counter("v2", 0)
    counter("host", 0)
    kills = MemoryKills(child().pid)
    kills.sample(0.0)
    counter("host", 1)  # another's
    kills.look()
    assert not kills.explains


def test_the_host_counts_where_the_group_has_gone_with_the_process(child, counter):
    group = counter("v2", 0)
    counter("host", 0)
    kills = MemoryKills(child().pid)
    kills.sample(0.0)
    group.unlink()
    counter("host", 1)
    kills.look()
    assert kills.explains


def test_a_kill_long_ago_explains_nothing_one_some_seconds_ago_does(child, counter):
    for rise, expected in ((5.0, False), (15.0, True)):
        kills = MemoryKills(child().pid)
        for now in (0.0, 5.0, 10.0, 15.0, 20.0):
            counter("host", int(now >= rise))
            kills.sample(now)
        kills.look()
        assert kills.explains is expected


def test_no_counter_no_explanation(child, counter):
    kills = MemoryKills(child().pid)
    kills.sample(0.0)
    kills.look()
    assert not kills.explains


def test_memory_of_a_process_and_its_workers(child):
    worker = "print(flush=True); import time; time.sleep(60)"
    code = f"import subprocess; subprocess.run([sys.executable, '-S', '-c', '{worker}'])"
    process = child(code)
    alone = memory_of(process.pid)
    assert alone.process > 1_000_000
    assert alone.workers == 0
    process.stdin.close()
    process.stdout.readline()
    with_worker = eventually(lambda: (found := memory_of(process.pid)).workers > 1_000_000 and found)
    for pid in _children(process.pid):
        os.kill(pid, signal.SIGKILL)
    assert with_worker.process > 1_000_000
    process.wait()
    assert memory_of(process.pid) is None
