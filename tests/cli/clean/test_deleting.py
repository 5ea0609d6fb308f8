"""`liquid-train clean`: what may go goes, and nothing else."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
from rundirs import DAY, bytes_in, left, make

from liquid_telemetry.spool import RunRecord, RunSeat
from liquid_train.__main__ import main
from liquid_train.housekeeping.units import size

pytestmark = [pytest.mark.filterwarnings(noise) for noise in tiny.LIGHTNING_NOISE]


@pytest.mark.parametrize(
    ("rules", "stay"),
    [
        (["--older-than", "30d"], ["a", "b", "c"]),
        (["--older-than", "30d", "--keep", "4"], ["a", "b", "c", "d"]),
        (["--older-than", "12h", "--keep", "1"], ["a"]),
        (["--keep", "2"], ["a", "b"]),
        (["--keep", "0"], []),
        (["--keep", "9"], ["a", "b", "c", "d", "e"]),
        (["--max-size", "5kB"], ["a", "b"]),
        (["--max-size", "5kB", "--keep", "3"], ["a", "b", "c"]),
        (["--max-size", "5kB", "--older-than", "1.5d"], ["a", "b"]),
        (["--max-size", "1TB"], ["a", "b", "c", "d", "e"]),
    ],
)
def test_rules(rules: list[str], stay: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    total = 0
    for name, days in zip("abcde", (0.6, 1, 2, 40, 50), strict=True):
        total = bytes_in(make(name, days))
    assert main(["clean", *rules, "--dry-run"]) == 0
    assert left() == ["a", "b", "c", "d", "e"]
    capsys.readouterr()
    assert main(["clean", *rules, "--yes"]) == 0
    assert left() == stay
    gone = 5 - len(stay)
    said = capsys.readouterr().out
    assert f"deleted {gone} run{'s' if gone != 1 else ''}, {size(gone * total)}" in said or not gone
    if not gone:
        assert "nothing to delete" in said


def test_each_run_is_told_why(capsys: pytest.CaptureFixture[str]) -> None:
    make("new", 1)
    make("old", 40)
    assert main(["clean", "--older-than", "30d", "--keep", "1", "--dry-run"]) == 0
    rows = {
        words[1]: " ".join(words)
        for words in map(str.split, capsys.readouterr().out.splitlines())
        if words[1:]
    }
    assert rows["new"].startswith("stays new 2.")
    assert rows["new"].endswith("of the newest 1")
    assert rows["old"].startswith("goes old 2.")
    assert rows["old"].endswith("last written to 40 days ago, longer than 30 days")


def test_what_is_no_run_is_left_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = place / "outside"
    outside.mkdir()
    (outside / "telemetry.json").write_text('{"run_id": "x", "events": "e"}')
    (outside / "precious").write_text("data")
    runs = Path("runs")
    (runs / "link").symlink_to(outside)
    (runs / "notes.txt").write_text("mine")
    (runs / "no-manifest").mkdir()
    (runs / "damaged").mkdir()
    (runs / "damaged" / "telemetry.json").write_text("{")
    (runs / "other").mkdir()
    (runs / "other" / "telemetry.json").write_text('{"name": "of another program"}')
    (runs / "linked-manifest").mkdir()
    (runs / "linked-manifest" / "telemetry.json").symlink_to(outside / "telemetry.json")
    for path in (outside / "telemetry.json", runs / "linked-manifest" / "telemetry.json"):
        os.utime(path, (time.time() - 10 * DAY,) * 2, follow_symlinks=False)
    make("run", 10)
    before = left()
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert left() == [name for name in before if name != "run"]
    said = capsys.readouterr().out
    for why in ("a link", "no folder", "it has no telemetry.json", "is damaged", "is not of a run"):
        assert f"{why}" in said, why
    assert (outside / "precious").read_text() == "data"


def test_links_in_a_run_go_and_what_they_lead_to_stays(place: Path) -> None:
    outside = place / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x" * 5000)
    folder = make("run", 10)
    (folder / "data").symlink_to(outside)
    (folder / "checkpoints" / "linked.ckpt").symlink_to(outside / "precious")
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert left() == []
    assert (outside / "precious").stat().st_size == 5000


def test_folder_given_by_a_link_is_the_users_own(place: Path) -> None:
    make("run", 10)
    Path("runs").rename(place / "elsewhere")
    Path("runs").symlink_to(place / "elsewhere")
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert left() == []


@contextmanager
def another_process(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs code, and then waits until its stdin ends."""
    script = f"import sys\nfrom pathlib import Path\nfrom liquid_telemetry.spool import *\n{code}\n"
    script += "print('ready', flush=True)\nsys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.communicate(timeout=20)


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the seat of the run `live`, with a final record."""
    with another_process(
        "seat = RunSeat.take(Path('spool'), RunRecord('live', 'M', status='completed'))"
    ) as it:
        yield it


def test_run_with_its_seat_is_never_touched(
    holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make("origin", 90)
    make("live", 80, resumed_from="origin")
    make("over", 70)
    assert main(["clean", "--keep", "0", "--older-than", "1d", "--max-size", "0", "--yes"]) == 0
    assert left() == ["live", "origin"]
    said = capsys.readouterr().out
    assert "live: its process holds its seat" in said
    assert "the live run live goes on from it" in said
    holder.communicate(timeout=20)
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert "an exporter may be about to tell of its end" in capsys.readouterr().out
    assert left() == ["live", "origin"]
    os.utime("spool/runs/live", (0, 0))
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert left() == []


@pytest.mark.parametrize(
    ("days", "manifest", "why"),
    [
        (0.5, {}, "may be live elsewhere: no end in its log"),
        (2, {}, None),
        (2, {"pid": 2**22 + 1}, None),
        (-1, {"pid": os.getpid()}, "live: process"),
        (20_000, {"pid": os.getpid()}, None),
    ],
)
def test_run_without_an_end(
    days: float, manifest: dict[str, Any], why: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    make("open", days, ended=False, **manifest)
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert left() == (["open"] if why else [])
    assert (why or "not of the newest 0") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("events", "hours", "why"),
    [
        ([], 0.5, "may be live elsewhere: no end in its log, and written to within an hour"),
        ([], 1.5, None),
        (["model_deployment_started"], 1.5, "may be live elsewhere"),
        (["model_deployment_started", "model_deployment_completed"], 1.5, "written to within a day"),
        (["model_deployment_started", {"event": "model_deployment_completed", "path": "x"}], 0.1, None),
        (["model_deployment_started", "model_deployment_failed"], 0.1, None),
        (["model_deployment_started", "model_deployment_completed", "serving_ended"], 0.1, None),
    ],
)
def test_run_that_trains_nothing(
    events: list[Any], hours: float, why: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("other", hours / 24)
    shutil.rmtree(folder / "checkpoints")
    lines = [event if isinstance(event, dict) else {"event": event} for event in events]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for path in (folder / "events.jsonl", folder):
        os.utime(path, (time.time() - hours * 3600,) * 2)
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert left() == (["other"] if why else [])
    assert (why or "not of the newest 0") in capsys.readouterr().out


def test_process_without_a_seat_may_go_on_after_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    make("tested", -0.1, spool=None, pid=os.getpid())
    make("seated", -0.1, pid=os.getpid())
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert left() == ["tested"]
    assert "nothing says that it is done with it" in capsys.readouterr().out


def test_run_that_went_on_after_its_end_has_none() -> None:
    folder = make("again", 0.5)
    with (folder / "events.jsonl").open("a") as log:
        log.write('{"event": "training_started"}\n')
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert left() == ["again"]


@pytest.mark.parametrize(
    ("which", "stay"),
    [
        ("best", ["checkpoints/best.ckpt", "config.yaml", "telemetry.json"]),
        ("all", ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "telemetry.json"]),
    ],
)
def test_checkpoints_are_kept(which: str, stay: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = make("run", 10)
    nothing = make("without", 10)
    for path in (nothing / "checkpoints").iterdir():
        path.unlink()
    command = ["clean", "--keep", "0", "--yes", "--keep-checkpoints", which]
    assert main(command) == 0
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == stay
    assert not nothing.exists()
    capsys.readouterr()
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (time.time() - 10 * DAY,) * 2)
    assert main(command) == 0
    assert "nothing but its kept checkpoints is left" in capsys.readouterr().out


def test_checkpoints_of_another_name_are_all_kept() -> None:
    folder = make("run", 10)
    (folder / "checkpoints" / "best.ckpt").rename(folder / "checkpoints" / "epoch=3.ckpt")
    assert main(["clean", "--keep", "0", "--yes", "--keep-checkpoints", "best"]) == 0
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["epoch=3.ckpt", "last.ckpt"]


def test_what_cannot_be_deleted_is_told_and_is_still_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("run", 10)
    make("second", 9)

    def refuse(path: Path) -> None:
        if path.parts[-2:] == ("run", "traces.1.jsonl"):
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path)

    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", refuse)
    assert main(["clean", "--keep", "0", "--yes"]) == 1
    said = capsys.readouterr()
    assert f"liquid-train: {folder}: Permission denied" in said.err
    assert "deleted 1 run, " in said.out
    assert (folder / "telemetry.json").is_file()


@pytest.mark.parametrize(("answer", "stay"), [("y\n", []), ("\n", ["run"]), ("no\n", ["run"])])
def test_it_asks_at_a_terminal(answer: str, stay: list[str]) -> None:
    make("run", 10)
    mine, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "liquid_train", "clean", "--keep", "0"],
        stdin=its,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(its)
    os.write(mine, answer.encode())
    said, _ = process.communicate(timeout=60)
    os.close(mine)
    assert process.returncode == 0
    assert "Delete 1 run, 2." in said
    assert left() == stay


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "clean: no rule; give --older-than 30d"),
        (["--keep", "0", "--dir", "nowhere"], "clean: --dir='nowhere': no such folder"),
        (["--keep", "0", "--dir", "runs/run"], "clean: --dir='runs/run': is a run itself"),
        (["--keep", "-1"], "must be a whole number of at least 0"),
        (["--older-than", "month"], "'month' must be an age such as"),
        (["--max-size", "20 apples"], "'20 apples' must be a size such as"),
        (["--keep", "0"], "clean: nobody to ask, for this is no terminal; say --yes"),
        (["--colour"], "see liquid-train clean --help"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: list[str], message: str) -> None:
    make("run", 10)
    done = subprocess.run(
        [sys.executable, "-m", "liquid_train", "clean", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert left() == ["run"]


def seat(name: str, status: str, days: float) -> Path:
    taken = RunSeat.take(Path("spool").absolute(), RunRecord(name, "M", status=status))
    taken.release()
    folder = Path("spool/runs") / name
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


def test_leftovers_in_the_spool(holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]) -> None:
    done, died, young = (
        seat("done", "completed", 3),
        seat("died", "running", 3),
        seat("young", "running", 0.5),
    )
    for path in (*Path("spool/runs/live").iterdir(), Path("spool/runs/live")):
        os.utime(path, (0, 0))
    assert main(["clean", "--spool", "--dry-run"]) == 0
    with another_process("lock = FileLock.take(Path('spool/exporter.lock'))"):
        assert main(["clean", "--spool", "--yes"]) == 0
        assert "nothing to delete in the spool" in capsys.readouterr().out
    assert done.exists()
    assert main(["clean", "--spool", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "its end is told" in said
    assert "its end has not been counted" in said
    assert "deleted 2 of 2 seats in the spool" in said
    assert (done.exists(), died.exists(), young.exists()) == (False, False, True)
    assert Path("spool/runs/live").exists()
