"""As a container's first process."""

import json
import sys

import psutil
import pytest

ORPHANS = """
import os, signal, sys, time
from pathlib import Path
made = []
for _ in range(5):
    reading, writing = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(writing, b"%d" % os.getpid())
            os._exit(7)
        os._exit(0)
    os.wait()
    made.append(int(os.read(reading, 20)))
while any(Path(f"/proc/{pid}").exists() for pid in made): time.sleep(0.01)
print("collected", os.getppid(), flush=True)
"""


def test_orphans_are_collected(finish, own_namespace):
    assert finish(sys.executable, "-c", ORPHANS, before=own_namespace) == (0, "collected 1\n", "")


@pytest.mark.parametrize(("code", "expected"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -11 $$", 139)])
def test_exit_codes(finish, own_namespace, code, expected):
    assert finish("sh", "-c", code, before=own_namespace)[0] == expected


def test_signals_that_the_kernel_keeps_from_a_first_process_reach_the_command(finish, own_namespace):
    """A first process gets no signal that it has no handler for, such as SIGTERM."""
    code = "import signal, subprocess; subprocess.run(['sh', '-c', 'kill 1']); signal.pause()"
    assert finish(sys.executable, "-c", code, before=own_namespace)[0] == 143


def test_the_exporter_counts_the_end_and_finishes_the_log_before_everything_goes(
    finish, exporter, own_namespace, spool, fake_run, tmp_path
):
    (tmp_path / "events.jsonl").touch()
    code = f"seat.update(events={str(tmp_path / 'events.jsonl')!r}, run_dir={str(tmp_path)!r}); os.kill(os.getpid(), 9)"
    assert finish(*fake_run("CfC", code), before=own_namespace)[0] == 137
    assert exporter.ends() == {("CfC", "failed/killed"): 1}
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    event = json.loads(line)
    assert (event["event"], event["reason"], event["signal_name"]) == ("training_failed", "killed", "SIGKILL")
    assert json.loads((spool / "targets.json").read_text()) == []


def test_it_lingers_also_as_first_process(start, exporter, own_namespace):
    process = start("sh", "-c", "exit 3", linger=60, name="night", before=own_namespace)
    assert "to be scraped" in process.stderr.readline()
    (launcher,) = psutil.Process(process.pid).children()
    launcher.terminate()
    assert process.wait(30) == 3
    assert exporter.ends() == {("night", "failed/exited"): 1}
