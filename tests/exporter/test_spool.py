"""The training process's side of the spool."""

import logging
import os
import stat
import subprocess
import sys

import pytest

from liquid_telemetry import spool as spools
from liquid_telemetry.spool import FileLock, RunRecord, RunSeat, SpoolError, is_locked, spool_dir

RECORD = RunRecord("run", "CfC")


def probe(path):
    """Whether another process finds the file locked."""
    code = "import sys; from pathlib import Path; from liquid_telemetry.spool import is_locked;"
    code += "print(is_locked(Path(sys.argv[1])))"
    output = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    ).stdout
    return output.strip() == "True"


def test_directory_in_order_of_preference(tmp_path, monkeypatch):
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path / "chosen" / "deep"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert spool_dir() == tmp_path / "chosen" / "deep"
    monkeypatch.delenv("LIQUID_TELEMETRY_SPOOL")
    assert spool_dir() == tmp_path / "liquid-telemetry"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert spool_dir() == tmp_path / "tmp" / f"liquid-telemetry-{os.getuid()}"
    assert stat.S_IMODE(spool_dir().stat().st_mode) == 0o700


def test_another_users_runtime_directory_is_not_used(tmp_path, monkeypatch):
    """``sudo`` and ``su`` may leave it in the environment."""
    monkeypatch.delenv("LIQUID_TELEMETRY_SPOOL")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" if os.getuid() else str(tmp_path))
    if os.getuid() == 0:
        os.chown(tmp_path, 12345, -1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert spool_dir() == tmp_path / f"liquid-telemetry-{os.getuid()}"


def test_directory_that_is_not_private_is_refused(tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    fix = "set LIQUID_TELEMETRY_SPOOL to a directory that only you can write to"
    for path, complaint in {
        shared: f"is writable by others; chmod 700 it, or {fix}",
        tmp_path / "link": f"is not a directory; {fix}",
        tmp_path / "file": f"cannot be created ([Errno 17] File exists: '{tmp_path / 'file'}'); {fix}",
    }.items():
        monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(path))
        with pytest.raises(SpoolError) as caught:
            spool_dir()
        assert str(caught.value) == f"telemetry spool {str(path)!r} {complaint}"
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(SpoolError, match=r"belongs to user \d+; set LIQUID_TELEMETRY_SPOOL"):
        spool_dir()


def test_record_survives_the_file_and_newer_keys():
    record = RunRecord(
        "run", "CfC", rank=3, job=False, status="failed", reason="exception", epoch=0, ended=1.5
    )
    assert RunRecord.from_json(record.to_json()) == record
    assert RunRecord.from_json(b'{"run_id": "run", "model_name": "CfC", "of_tomorrow": 1}') == RECORD
    for damaged in (b"", b"[]", b'{"run_id": "run"}'):
        with pytest.raises(ValueError, match=r"run record|Expecting value"):
            RunRecord.from_json(damaged)


def test_seat_is_locked_before_it_is_recorded_and_freed_at_the_end(spool):
    seat = RunSeat.take(spool, RECORD)
    lock, record = spool / "runs" / "run" / "0.lock", spool / "runs" / "run" / "0.json"
    assert probe(lock)
    assert RunRecord.from_json(record.read_bytes()) == seat.record
    assert (seat.record.pid, seat.record.ppid) == (os.getpid(), os.getppid())
    assert seat.record.started > 0
    seat.update(status="running", epoch=2)
    seat.publish(b"# EOF\n")
    assert RunRecord.from_json(record.read_bytes()).epoch == 2
    assert probe(lock)
    seat.release()
    seat.release()
    assert not probe(lock)
    seat.update(epoch=3)
    seat.publish(b"later")
    assert RunRecord.from_json(record.read_bytes()).epoch == 2
    assert record.with_suffix(".prom").read_bytes() == b"# EOF\n"


def test_runs_of_one_process_do_not_free_one_another(spool):
    first, second = (RunSeat.take(spool, RunRecord(run_id, "CfC")) for run_id in ("one", "two"))
    second.release()
    assert probe(spool / "runs" / "one" / "0.lock")
    again = RunSeat.take(spool, RunRecord("two", "CfC"))
    again.release()
    assert probe(spool / "runs" / "one" / "0.lock")
    first.release()


def test_seat_is_taken_once(spool, trainer):
    seat = RunSeat.take(spool, RECORD)
    with pytest.raises(SpoolError, match="rank 0 of run run already has a seat here"):
        RunSeat.take(spool, RECORD)
    assert probe(spool / "runs" / "run" / "0.lock")
    seat.release()
    trainer(run_id="other")
    with pytest.raises(SpoolError, match="rank 0 of run other has a seat in another process"):
        RunSeat.take(spool, RunRecord("other", "CfC"))


@pytest.mark.parametrize("run_id", ["", "..", "a/b", ".hidden", "x" * 129, "a\n"])
def test_run_id_must_be_a_file_name(spool, run_id):
    with pytest.raises(ValueError, match="must be 1 to 128 letters, digits"):
        RunSeat.take(spool, RunRecord(run_id, "CfC"))


def test_forked_child_does_nothing_with_the_seat(spool):
    """A DataLoader worker inherits the object, not the lock."""
    seat = RunSeat.take(spool, RECORD)
    pid = os.fork()
    if pid == 0:
        seat.update(status="failed")
        seat.publish(b"child")
        seat.release()
        os._exit(0)
    os.waitpid(pid, 0)
    lock = spool / "runs" / "run" / "0.lock"
    assert probe(lock)
    assert RunRecord.from_json(lock.with_suffix(".json").read_bytes()).status == "starting"
    assert not lock.with_suffix(".prom").exists()
    seat.release()


def test_deleted_directory_is_made_again(spool):
    seat = RunSeat.take(spool, RECORD)
    subprocess.run(["rm", "-r", str(spool / "runs")], check=True)
    seat.publish(b"# EOF\n")
    directory = spool / "runs" / "run"
    assert sorted(path.name for path in directory.iterdir()) == ["0.json", "0.lock", "0.prom"]
    assert probe(directory / "0.lock")
    seat.release()


def test_failed_write_keeps_the_old_content_and_leaves_no_file(spool):
    target = spool / "file"
    target.mkdir()
    (target / "kept").touch()
    with pytest.raises(IsADirectoryError):
        spools.write_atomically(target, b"new")
    assert [path.name for path in spool.iterdir()] == ["file"]


def test_lock_that_was_replaced_is_noticed(spool):
    lock = FileLock.take(spool / "lock")
    assert lock.lies_on_disk()
    (spool / "lock").unlink()
    assert not lock.lies_on_disk()
    (spool / "lock").touch()
    assert not lock.lies_on_disk()
    lock.release()
    assert not is_locked(spool / "lock")


def test_lock_of_another_process(spool, trainer):
    job = trainer()
    lock = spool / "runs" / job.run_id / "0.lock"
    assert is_locked(lock)
    assert FileLock.take(lock, patience=0) is None
    job.kill()
    assert not is_locked(lock)


def test_platform_without_locks(spool, monkeypatch, caplog):
    monkeypatch.setattr("liquid_telemetry.spool._lock.SUPPORTED", False)
    monkeypatch.setattr("liquid_telemetry.spool._seat._warned", [])
    with caplog.at_level(logging.WARNING, "liquid_telemetry"):
        for run_id in ("one", "two"):
            RunSeat.take(spool, RunRecord(run_id, "CfC")).release()
        assert not spools.start_exporter(spool)
    assert [record.getMessage() for record in caplog.records] == [
        "this platform has no POSIX locks: the end of a killed process will not be seen",
        "this platform has no POSIX locks: the metrics are not served; pass registry= to serve them",
    ]


def test_spool_imports_the_standard_library_only():
    code = "import sys, liquid_telemetry.spool; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    top = {name.split(".")[0] for name in output.split()} - set(sys.stdlib_module_names)
    assert {name for name in top if not name.startswith("_")} == {"liquid_telemetry"} | _at_startup()


def _at_startup():
    output = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True
    )
    top = {name.split(".")[0] for name in output.stdout.split()} - set(sys.stdlib_module_names)
    return {name for name in top if not name.startswith("_")}
