"""`liquid-train doctor`: what it asks for, tells and returns."""

import pytest
from servers import free_port

from liquid_train.__main__ import main
from liquid_train.doctor.examine import DEFAULTS


def test_a_machine_without_anything_is_well(doctor, alone):
    code, found = doctor()
    assert code == 0
    assert {status for one in found.values() if (status := one["status"]) == "problem"} == set()
    for area, check in [
        ("prometheus", "address"),
        ("alertmanager", "address"),
        ("grafana", "address"),
        ("otlp", "traces"),
        ("exporter", "process"),
    ]:
        assert found[area, check]["status"] == "not there"
    assert found["machine", "versions"]["status"] == "ok"
    assert found["spool", "directory"]["seen"].startswith(f"{alone}/spool, mode 700")
    assert found["spool", "locks"]["status"] == "ok"
    assert {path.name for path in (alone / "spool").iterdir()} == set()


def test_what_is_named_has_to_be_there(doctor):
    urls = {name: f"http://127.0.0.1:{free_port()}" for name in DEFAULTS}
    code, found = doctor(*(word for name, url in urls.items() for word in (f"--{name}", url)))
    assert code == 1
    for (area, _), one in found.items():
        if area in urls:
            assert (one["status"], one["seen"]) == ("problem", f"{urls[area]}: nothing listens there")
            assert f"--{area} URL" in one["todo"]


def test_a_check_that_fails_is_a_finding(doctor, monkeypatch):
    monkeypatch.setattr("liquid_train.doctor.examine.check_machine", lambda _: 1 / 0)
    code, found = doctor()
    assert code == 1
    assert "ZeroDivisionError" in found["machine", "check"]["seen"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prometheus", "localhost:9090"], "'localhost:9090' must be a URL as http://HOST:PORT"),
        (["--grafana", "ftp://u:secret@h"], "'h' must be a URL"),
        (["--test-alert", "loud"], "invalid choice: 'loud'"),
        (["--all"], "unrecognized arguments: --all"),
    ],
)
def test_mistakes_are_one_line(options, said, capsys):
    assert main(["doctor", *options]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "secret" not in error


def test_what_a_person_reads(read):
    said = read("--alertmanager", "http://127.0.0.1:1")
    assert (
        "  problem    address: http://127.0.0.1:1: nothing listens there\n             → make stack" in said
    )
    assert said.endswith(("warnings\n", "warning\n"))
    assert "1 problem, " in said
