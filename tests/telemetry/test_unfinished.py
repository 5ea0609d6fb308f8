"""Finishing the trace of a process that has died."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from liquid_telemetry.files import LineFile
from liquid_telemetry.tracing.otlp_json import LineEncoder, SpanData
from liquid_telemetry.tracing.unfinished import FILE, finish_trace, write_unfinished

FIT = SpanData("fit", "a" * 32, "1" * 16, "0" * 16, 100, 100, {"liquid_train.run.id": "r"})
EPOCH = SpanData("train epoch", "a" * 32, "2" * 16, "0" * 16, 200, 200)


def spans(traces: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in traces.read_text().splitlines()]
    return [span for line in lines for span in line["resourceSpans"][0]["scopeSpans"][0]["spans"]]


def test_open_spans_are_closed_as_failed(tmp_path: Path) -> None:
    write_unfinished(tmp_path, {"service.name": "s"}, [FIT, EPOCH])
    assert finish_trace(tmp_path, tmp_path / "traces.jsonl", 900, {"reason": "killed"}) == 2
    fit, epoch = spans(tmp_path / "traces.jsonl")
    assert (fit["spanId"], epoch["spanId"]) == (FIT.span_id, EPOCH.span_id)
    assert (epoch["startTimeUnixNano"], epoch["endTimeUnixNano"]) == ("200", "900")
    assert fit["status"] == {"code": 2, "message": "killed"}
    assert {"key": "liquid_train.reason", "value": {"stringValue": "killed"}} in fit["attributes"]
    assert finish_trace(tmp_path, tmp_path / "traces.jsonl", 900, {"reason": "killed"}) == 0


def test_a_span_that_was_written_before_the_end_is_not_written_twice(tmp_path: Path) -> None:
    traces = tmp_path / "traces.jsonl"
    traces.write_text(LineEncoder({}, "t", "1").line([EPOCH]))
    write_unfinished(tmp_path, {}, [FIT, EPOCH])
    assert finish_trace(tmp_path, traces, 900, {"reason": "killed"}) == 1
    assert [span["name"] for span in spans(traces)] == ["train epoch", "fit"]
    assert not (tmp_path / FILE).exists()


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    traces = tmp_path / "traces.jsonl"
    whole = LineEncoder({}, "t", "1").line([EPOCH])
    traces.write_text(whole + whole[:50])
    write_unfinished(tmp_path, {}, [FIT])
    finish_trace(tmp_path, traces, 900, {"reason": "killed"})
    assert [span["name"] for span in spans(traces)] == ["train epoch", "fit"]


def test_a_line_file_takes_back_half_a_line_only(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for left, expected in (
        ("", "new\n"),
        ("old\n", "old\nnew\n"),
        ("old\nha", "old\nnew\n"),
        ("ha", "new\n"),
    ):
        path.write_text(left)
        file = LineFile(path)
        file.write("new\n")
        file.close()
        assert path.read_text() == expected
