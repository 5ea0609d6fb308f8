"""What the page shows of an event log."""

import json

import pytest

from liquid_telemetry.live import log as live_log
from liquid_telemetry.live.log import MAX_EPOCHS, MAX_EVENTS, Log, numbers, seconds


def line(event, second=0, **fields):
    stamp = f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000000Z"
    return json.dumps({"timestamp": stamp, "level": "info", "event": event, **fields}) + "\n"


def epoch(number):
    fields = {
        "epoch": number,
        "loss": 1.0 / (number + 1),
        "duration_seconds": 2.0,
        "batches": 10,
        "samples": 40,
    }
    return line("training_epoch_completed", number % 3600, global_step=10 * (number + 1), **fields)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


@pytest.fixture
def opened(path):
    log = Log(path)
    yield log
    log.close()


def test_epochs_and_events_are_kept_apart(path, opened):
    path.write_text(
        line("training_started", model_name="M") + epoch(0) + line("checkpoint_saved", 1, path="p")
    )
    opened.refresh()
    assert [row["epoch"] for row in opened.epochs.rows] == [0]
    assert [row["event"] for row in opened.events.rows] == ["training_started", "checkpoint_saved"]
    assert opened.events.rows[1]["text"] == "path p"
    assert opened.first["model_name"] == "M"
    assert opened.last_time == seconds("2026-01-01T00:00:01Z")


def test_grows_with_the_file_and_waits_for_whole_lines(path, opened):
    opened.refresh()
    assert opened.first is None
    whole = line("a") + line("b")
    path.write_text(whole[:-5])
    opened.refresh()
    assert opened.events.seen == 1
    with path.open("a") as file:
        file.write(whole[-5:])
    opened.refresh()
    assert opened.events.after(1) == {"seen": 2, "rows": [opened.events.rows[1]]}
    assert opened.events.after(2)["rows"] == []


def test_rotated_parts_come_first_and_a_rotation_is_followed(path, opened, tmp_path):
    (tmp_path / "events.2.jsonl").write_text(epoch(0))
    (tmp_path / "events.1.jsonl").write_text(epoch(1))
    path.write_text(epoch(2))
    opened.refresh()
    with path.open("a") as file:
        file.write(epoch(3))
    for part in (2, 1):
        (tmp_path / f"events.{part}.jsonl").rename(tmp_path / f"events.{part + 1}.jsonl")
    path.rename(tmp_path / "events.1.jsonl")
    path.write_text(epoch(4))
    opened.refresh()
    assert [row["epoch"] for row in opened.epochs.rows] == [0, 1, 2, 3, 4]


def test_closed_log_goes_on_where_it_stopped(path, opened):
    path.write_text(line("a"))
    opened.refresh()
    opened.close()
    with path.open("a") as file:
        file.write(line("b"))
    opened.refresh()
    assert [row["event"] for row in opened.events.rows] == ["a", "b"]


def test_bounded_whatever_the_log(path, opened):
    path.write_text("".join(epoch(n) for n in range(MAX_EPOCHS + 10)) + line("e") * (MAX_EVENTS + 5))
    opened.refresh()
    assert (opened.epochs.seen, len(opened.epochs.rows)) == (MAX_EPOCHS + 10, MAX_EPOCHS)
    assert (opened.events.seen, len(opened.events.rows)) == (MAX_EVENTS + 5, MAX_EVENTS)
    assert opened.epochs.rows[0]["epoch"] == 10


def test_broken_lines_and_long_texts(path, opened):
    path.write_bytes(
        b"\xff\xfe\n[1]\n{\n" + line("x" * 1000, detail="y" * 10_000, level="z" * 99).encode() + b"[" * 99_999
    )
    opened.refresh()
    (row,) = opened.events.rows
    assert [len(row[name]) for name in ("event", "level", "text")] == [100, 20, 300]


def test_very_long_log_is_read_from_its_end(path, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(live_log, "_FIRST_BYTES", 2000)
    for part in range(1, 6):
        (tmp_path / f"events.{part}.jsonl").write_text("".join(epoch(10 * (6 - part) + n) for n in range(10)))
    path.write_text(epoch(99))
    opened.refresh()
    found = [row["epoch"] for row in opened.epochs.rows]
    assert found == sorted(found)
    assert found[-1] == 99
    assert opened.epochs.seen < 25


def test_end_is_undone_by_a_run_that_goes_on(path, opened):
    path.write_text(line("training_started") + line("training_failed", reason="killed"))
    opened.refresh()
    assert opened.end["reason"] == "killed"
    with path.open("a") as file:
        file.write(line("training_started", 2))
    opened.refresh()
    assert opened.end is None


def test_epochs_as_points(path, opened):
    path.write_text(epoch(0) + epoch(1))
    opened.refresh()
    points = list(numbers(opened.epochs))
    assert [(point["step"], point["batches"], point["samples"]) for point in points] == [
        (10, 10, 40),
        (20, 20, 80),
    ]


@pytest.mark.parametrize("stamp", [None, "", "soon", 3])
def test_no_timestamp(stamp):
    assert seconds(stamp) is None
