"""`liquid-train doctor` on this host: spool, exporter, versions, disks."""

import os
import signal

import pytest
from impostors import serving

from liquid_telemetry.spool import RunRecord
from liquid_train.doctor import machine, web


def test_a_spool_that_others_can_write_to(doctor, alone):
    spool = alone / "spool"
    spool.mkdir()
    spool.chmod(0o777)
    code, found = doctor()
    assert code == 1
    assert "is writable by others" in found["spool", "directory"]["seen"]
    assert "LIQUID_TELEMETRY_SPOOL" in found["spool", "directory"]["todo"]


def test_what_dead_runs_leave(doctor, alone):
    spool = alone / "spool"
    (spool / "runs" / "r1").mkdir(parents=True)
    spool.chmod(0o700)
    (spool / "runs" / "r1" / "0.json").write_bytes(RunRecord("r1", "M", status="running").to_json())
    (spool / "runs" / "r1" / "1.json").write_bytes(RunRecord("r1", "M", rank=1, status="completed").to_json())
    (spool / "runs" / "r1" / "2.json").write_text("{")
    code, found = doctor()
    assert code == 0
    assert found["spool", "runs"]["status"] == "warning"
    assert "1 died and are not counted yet: r1 rank 0" in found["spool", "runs"]["seen"]
    assert "1 damaged" in found["spool", "records"]["seen"]


def test_an_exporter_that_hangs(doctor, alone, exporter, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT", 0.3)
    os.kill(exporter.pid, signal.SIGSTOP)
    try:
        code, found = doctor()
    finally:
        os.kill(exporter.pid, signal.SIGCONT)
    assert code == 1
    assert (
        found["exporter", "address"]["seen"] == f"{exporter.url} (pid {exporter.pid}): no answer within 0.3 s"
    )
    assert found["exporter", "address"]["todo"].startswith(f"kill {exporter.pid} ")


def test_who_has_the_port(doctor, monkeypatch):
    from liquid_train.doctor import exporter

    check = exporter.check_port
    with serving({}) as url:
        monkeypatch.setattr(exporter, "check_port", lambda: check(url))
        found = doctor()[1]["exporter", "port"]
    assert "is taken by another program" in found["seen"]
    with serving({"/live": (200, {"status": "alive"})}) as url:
        found = doctor()[1]["exporter", "port"]
    assert "is taken by the exporter of another spool or user" in found["seen"]
    assert "is free" in doctor()[1]["exporter", "port"]["seen"]


def test_versions(monkeypatch):
    def version(package):
        return {"torch": "2.0.1", "lightning": None}.get(package, "99")

    monkeypatch.setattr(machine, "_version", version)
    (found,) = machine.check_versions()
    assert found.status == "problem"
    assert "torch 2.0.1, needs >=2.4" in found.seen
    assert "lightning is missing" in found.seen


@pytest.mark.parametrize(("free", "status"), [(0.1, "problem"), (0.9, "warning"), (5, "warning"), (50, "ok")])
def test_disks(free, status, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": free * 1e9, "total": 100e9})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    (found,) = machine.check_disks({"runs": tmp_path / "runs", "the spool": tmp_path})
    assert found.status == status
    assert "for runs and the spool" in found.seen
