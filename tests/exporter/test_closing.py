"""The event that the exporter writes for a process that could not."""

import json
from datetime import datetime, timezone

import pytest

from liquid_telemetry.exporter.closing import Story, report_death
from liquid_telemetry.exporter.exit_status import Exit
from liquid_telemetry.exporter.outcome import Outcome
from liquid_telemetry.memory import Memory
from liquid_telemetry.signals import EVENTS
from liquid_telemetry.spool import RunRecord
from liquid_telemetry.tracing.otlp_json import SpanData
from liquid_telemetry.tracing.unfinished import write_unfinished

LINE = b'{"event": "training_started", "run_id": "run"}\n'


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(LINE)
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_last(path):
    return json.loads(path.read_text().splitlines()[-1])


def record(path, **fields):
    return RunRecord(
        "run", "CfC", trace_id="ab" * 16, pid=7, started=1.0, epoch=1, events=str(path), **fields
    )


def report(record, reason, last, kind="failed", **known):
    report_death(Story(record, Outcome(kind, reason), last=last, **known))


def test_death_of_a_process_is_told_in_its_log(exporter, trainer, snapshot, events, wait):
    job = trainer(events=str(events), trace_id="ab" * 16, epoch=1, batch=7)
    job.publish(snapshot(loss=0.5, step=70))
    exporter.start()
    before = datetime.now(timezone.utc)
    job.kill()
    wait(lambda: len(read(events)) == 2)
    event = read(events)[1]
    assert before <= datetime.fromisoformat(event.pop("timestamp").replace("Z", "+00:00"))
    assert event.pop("duration_seconds") > 0
    assert event.pop("memory_process_bytes") > 1_000_000
    assert event == {
        "level": "error",
        "stage": None,
        "event": "training_failed",
        "logger": "liquid_telemetry.exporter",
        "run_id": job.run_id,
        "model_name": "CfC",
        "trace_id": "ab" * 16,
        "phase": None,
        "reason": "killed",
        "known_by": "exit status",
        "error_type": None,
        "error_message": "killed by signal 9 (SIGKILL)",
        "traceback": None,
        "exit_code": None,
        "signal": 9,
        "signal_name": "SIGKILL",
        "memory_workers_bytes": 0,
        "log_tail": [LINE.decode().strip()],
        "rank": 0,
        "pid": job.pid,
        "epoch": 1,
        "batch": 7,
        "global_step": 70,
        "loss": 0.5,
    }


def test_it_is_written_once_whatever_happens_to_the_exporter(exporter, trainer, events, wait):
    trainer(events=str(events)).kill()
    for _ in range(3):
        trainer(model_name="LTC")
        exporter.start()
        wait(lambda: len(read(events)) == 2)
        exporter.kill()
    assert [event["event"] for event in read(events)] == ["training_started", "training_failed"]


def test_what_the_trainer_wrote_itself_is_enough(exporter, trainer, events):
    job = trainer(events=str(events))
    exporter.start()
    exporter.scrape()
    job.end("failed", reason="exception")
    for _ in range(3):
        exporter.scrape()
    assert events.read_bytes() == LINE


def test_fields_are_those_of_the_catalogue(events):
    report(record(events), "unknown", {"global_step": 3.0, "loss": 0.5})
    missing = set(EVENTS["training_failed"].fields) - read(events)[1].keys()
    assert not missing


def test_an_interruption_that_only_the_exit_tells(exporter, trainer, events, wait):
    job = trainer(events=str(events), epoch=1, batch=7)
    exporter.start()
    exporter.scrape()
    job.run("import signal; os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)")
    wait(lambda: len(read(events)) == 2)
    event = read(events)[1]
    assert event["event"] == "training_interrupted"
    assert event["level"] == "warning"
    assert {name: event[name] for name in ("reason", "signal", "signal_name", "epoch", "batch")} == {
        "reason": "terminated",
        "signal": 15,
        "signal_name": "SIGTERM",
        "epoch": 1,
        "batch": 7,
    }
    assert not set(EVENTS["training_interrupted"].fields) - event.keys()
    assert exporter.total("CfC", "interrupted/terminated") == 1


def test_everything_known_is_told(events):
    events.write_bytes(
        b"".join(b'{"event": "n%d", "run_id": "run"}\n' % n for n in range(20)) + b"x" * 1200 + b"\n"
    )
    known = {"exit": Exit(code=3), "memory": Memory(5, 7), "text": "exited with code 3"}
    report(record(events), "exited", {}, **known)
    event = read_last(events)
    assert (event["exit_code"], event["signal"]) == (3, None)
    assert (event["memory_process_bytes"], event["memory_workers_bytes"]) == (5, 7)
    assert event["error_message"] == "exited with code 3"
    assert [json.loads(line)["event"] for line in event["log_tail"][:-1]] == [f"n{n}" for n in range(11, 20)]
    assert event["log_tail"][-1] == "x" * 999 + "…"


def test_the_innermost_open_span_is_named(events, tmp_path):
    spans = [
        SpanData(name, "ab" * 16, f"{number:016x}", None, 0, 0, {})
        for number, name in enumerate(("fit", "train epoch", "validation epoch"), 1)
    ]
    write_unfinished(tmp_path, {}, spans)
    report(record(events, run_dir=str(tmp_path), traces=str(tmp_path / "traces.jsonl")), "killed", {})
    told = read_last(events)
    assert (told["trace_id"], told["span_id"]) == ("ab" * 16, f"{3:016x}")


def test_half_a_line_is_cut_off_and_a_whole_one_is_ended(events):
    events.write_bytes(LINE + b'{"event": "training_epo')
    report(record(events), "killed", {})
    assert [event["event"] for event in read(events)] == ["training_started", "training_failed"]
    events.write_bytes(LINE + LINE.strip())
    report(record(events), "killed", {})
    assert [event["event"] for event in read(events)] == ["training_started"] * 2 + ["training_failed"]


def test_event_of_another_run_does_not_count(events):
    events.write_text('{"event": "training_failed", "run_id": "earlier"}\n')
    report(record(events), "killed", {})
    assert [event["run_id"] for event in read(events)] == ["earlier", "run"]


def test_numbers_that_json_does_not_know(events):
    report(record(events), "nonfinite", {"loss": float("nan"), "epoch": 2.0})
    event = read(events)[1]
    assert event["loss"] is None
    assert event["epoch"] == 2


def test_run_that_died_before_its_first_line_gets_a_log(tmp_path):
    report(record(tmp_path / "new.jsonl"), "killed", {})
    event = read_last(tmp_path / "new.jsonl")
    assert (event["event"], event["reason"], event["log_tail"]) == ("training_failed", "killed", [])


def test_no_log_no_event(tmp_path):
    report(record(tmp_path / "deleted" / "events.jsonl"), "killed", {})
    report(RunRecord("run", "CfC"), "killed", {})
    assert not (tmp_path / "deleted").exists()


def test_log_that_cannot_be_written_is_counted(exporter, trainer, tmp_path, labels, wait):
    """A directory in its place stands for any error of the disk."""
    (tmp_path / "events.jsonl").mkdir()
    trainer(events=str(tmp_path / "events.jsonl")).kill()
    trainer(model_name="LTC")
    exporter.start()
    fault = labels(signal="exporter", reason="closing")
    wait(lambda: exporter.scrape()["telemetry_errors_total"][fault] == 1)
