"""`liquid-train logs`: what event logs tell, in exact numbers."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
from loglines import epochs, line

from liquid_telemetry import Telemetry
from liquid_train.__main__ import main
from liquid_train.logs import lines as lines_module
from liquid_train.logs.store import Store

pytestmark = [pytest.mark.filterwarnings(noise) for noise in tiny.LIGHTNING_NOISE]
DOCUMENT = Path(__file__).parents[3] / "docs" / "logs.md"


ODD = [
    line("training_started", run_id="a", model_name="M"),
    line("training_epoch_completed", run_id="a", model_name="M", epoch=0, loss=0.5, metrics={"a": 1}),
    line("training_epoch_completed", run_id="a", model_name="M", epoch="one", loss=[1], metrics=[1, 2]),
    line(
        "training_epoch_completed", run_id="a", epoch={"x": 1}, loss="high", metrics="none", level="WARNING"
    ),
    line("training_failed", run_id="a", model_name="M", level="error", reason="exception"),
    b'{"level": 7, "event": {"kind": "of another program"}, "timestamp": 1793491200.5}',
    b'{"level": "fatal", "event": null, "timestamp": "infinity"}',
    b'{"msg": "another program", "severity": "INFO"}',
    b'{"level": "info", "event": "not finite", "loss": NaN, "duration_seconds": 1e999}',
    b'{"level": "info", "event": "bytes \xff\xfe"}',
    b'{"level": "info", "event": "zero \x00 byte"}',
    b"\x00" * 20,
    b"",
    b"  \t ",
    b'{"level": "info", "event": "carriage return"}\r',
    b'  {"level": "info", "event": "indented"}',
    b"{'level': 'info', 'event': 'no JSON'}",
    b"Traceback (most recent call last):",
    b"[1, 2, 3]",
    b'"text"',
    b"42",
    b"null",
    b'{"level": "info"} {"level": "info"}',
    b'{"level": "info", ',
    b'"event": "in two lines"}',
    b'{"level": "info", "event": "zero escaped \\u0000"}',
    '{"level": "info", "event": "line\u2028separator \u0085 é"}'.encode(),
    b'{"n": 123456789012345678901234567890, "level": "info", "event": "large number"}',
    b'{"level": "error", "event": "long", "text": "' + b"x" * 3_000_000 + b'"}',
    b'{"level": "info", "event": "deep", "tree": ' + b"[" * 500 + b"]" * 500 + b"}",
    line("last"),
    b'{"level": "info", "event": "hal',
]


def by_hand(text: bytes) -> dict[str, Any]:
    """The numbers as a loop over lines finds them."""
    count, bad, levels, events = 0, [], Counter[str], Counter[str]
    levels, events = Counter(), Counter()
    for number, raw in enumerate(text.split(b"\n"), 1):
        if not raw.strip():
            continue
        count += 1
        try:
            fields = json.loads(raw)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            bad.append(number)
            continue
        level, event = fields.get("level"), fields.get("event")
        levels["none" if level is None else str(level).lower()] += 1
        events["none" if event is None else event if isinstance(event, str) else json.dumps(event)] += 1
    return {"lines": count, "bad": bad, "levels": dict(levels), "events": dict(events)}


def reported(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert main(["logs", "--json", *map(str, arguments)]) == code
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.mark.parametrize("packed", [False, True])
def test_odd_log_is_counted_as_by_hand(
    packed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = b"\n".join(ODD)
    path = tmp_path / f"odd [1].jsonl{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(text) if packed else text)
    path.with_name(path.name.replace("[1]", "1")).write_bytes(b"what a pattern would find\n")
    mine, found = by_hand(text), reported(capsys, path)
    good = mine["lines"] - len(mine["bad"])
    assert found["lines"] == {
        "read": mine["lines"],
        "unparsable": len(mine["bad"]),
        "chosen": good,
        "without_time": good - 7,
    }
    assert found["levels"] == mine["levels"]
    assert {name.replace('{"kind":', '{"kind": '): n for name, n in found["events"].items()} == mine["events"]
    assert [(shown["file"], shown["line"]) for shown in found["unparsable"]] == [
        (str(path), number) for number in mine["bad"][:5]
    ]
    assert found["unparsable"][0]["text"] == r'{"level": "info", "event": "bytes \xff\xfe"}'
    assert found["rates"]["error_lines"] == 3
    assert found["rates"]["error_rate"] == 3 / good
    assert [(f["reason"], f["lines"], f["runs"]) for f in found["failures"]] == [("exception", 1, 1)]
    assert (found["first"], found["last"]) == ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00.500000Z")


def test_many_small_and_one_large_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The place of an unparsable line is right also where several threads read a file."""
    whole = line("x", pad="y" * 200) + b"\n"
    with (tmp_path / "events.jsonl").open("wb") as out:
        for number in range(1, 200_001):
            out.write(b"oops\n" if number in (70_000, 180_000) else b"\n" if number % 50_000 == 1 else whole)
    for number in range(300):
        folder = tmp_path / "more" / str(number)
        folder.mkdir(parents=True)
        (folder / "events.rank1.2.jsonl").write_bytes(whole + b"not this\n" * (number == 299))
    (tmp_path / "more" / "traces.jsonl").write_bytes(whole)
    found = reported(capsys, tmp_path)
    assert found["files"]["read"] == 301
    assert (found["lines"]["read"], found["lines"]["unparsable"]) == (200_000 - 4 + 301, 3)
    assert [shown["line"] for shown in found["unparsable"]] == [70_000, 180_000, 2]


def test_compressed_parts_and_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress(b"".join(line("x", number=n, pad=f"{n * n * 7919}") + b"\n" for n in range(20_000)))
    (tmp_path / "events.1.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "events.2.jsonl.gz").write_bytes(b"no gzip at all")
    (tmp_path / "events.jsonl.gz").write_bytes(gzip.compress(line("x")) + gzip.compress(b"\n" + line("x")))
    with Store() as store:
        store.db.execute(
            f"COPY (SELECT 'error' AS level, 'packed' AS event FROM range(7)) "
            f"TO '{tmp_path / 'events.3.jsonl.zst'}' (FORMAT json, COMPRESSION zstd)"
        )
    found = reported(capsys, tmp_path, "--fail-on", "unparsable", code=3)
    assert [Path(file["file"]).name for file in found["files"]["damaged"]] == [
        "events.1.jsonl.gz",
        "events.2.jsonl.gz",
    ]
    assert "ended before the end" in found["files"]["damaged"][0]["cause"]
    assert (found["events"]["packed"], found["levels"]["error"]) == (7, 7)
    assert 2_000 < found["events"]["x"] - 2 < 18_000
    assert found["lines"]["unparsable"] <= 1


def test_line_too_long_is_unparsable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events.jsonl"
    long = b'{"event": "' + b"x" * (2 * lines_module.LONGEST + 5) + b'"}'
    path.write_bytes(b"\n".join([line("x"), long, line("x")]))
    found = reported(capsys, path)
    assert (found["lines"]["read"], found["lines"]["unparsable"], found["events"]) == (3, 1, {"x": 2})
    assert found["unparsable"] == [{"file": str(path), "line": 2, "text": "(too long)"}]
    assert found["files"]["damaged"] == []


def test_anomalies_are_those_put_in(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, history)
    told = [(a["run_id"], a["what"], a["epoch"], a["earlier_runs"]) for a in found["anomalies"]]
    assert told == [("r7", "failed", None, 6), ("r6", "loss", 2, 5), ("r5", "epoch_seconds", None, 4)]
    assert [(a["value"], a["expected"]) for a in found["anomalies"][1:]] == [
        (0.5, pytest.approx(1 / 3)),
        (15.0, 10.0),
    ]


def test_slow_lines_and_slowest_epochs(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, history, "--top", 2)
    total = 5 * 8 + 5 + 4
    assert found["lines"]["chosen"] == total
    assert (found["rates"]["slow_lines"], found["rates"]["slow_rate"]) == (1, 1 / total)
    assert [(row["run_id"], row["epoch"]) for row in found["slowest_epochs"]] == [("r3", 2), ("r5", 0)]
    slowest = found["slowest_epochs"][0]
    assert (slowest["seconds"], slowest["times_median"]) == (pytest.approx(29.4), pytest.approx(3.0))
    assert found["slowest_batches"][0]["seconds_a_batch"] == pytest.approx((29.4 - 1.0) / 10)
    assert reported(capsys, history, "--slow", 3.5)["rates"]["slow_lines"] == 0


def test_time_line_has_every_line_and_the_gaps(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, history)
    timeline = found["timeline"]
    assert timeline["step_seconds"] == 3 * 3600
    assert sum(step["lines"] for step in timeline["steps"]) == 49
    assert sum(step["errors"] for step in timeline["steps"]) == 1
    assert [step["lines"] for step in timeline["steps"]][:9] == [8, 0, 0, 0, 0, 0, 0, 0, 8]
    assert timeline["steps"][-1]["start"] == "2026-11-07T00:00:00Z"


def test_choice_of_lines(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def chosen(*arguments: object) -> tuple[int, list[str], list[str]]:
        found = reported(capsys, history, *arguments)
        runs = sorted(run["run_id"] for run in found["runs"]["latest"])
        return found["lines"]["chosen"], runs, [odd["run_id"] for odd in found["anomalies"]]

    assert chosen("--run", "r5") == (8, ["r5"], ["r5"])
    assert chosen("--level", "warning") == (1, ["r7"], ["r7"])
    assert chosen("--since", "2026-11-06") == (9, ["r6", "r7"], ["r7", "r6"])
    assert chosen("--until", "2026-11-01T02:05:00+02:00") == (5, ["r1"], [])
    assert chosen("--model", "N") == (0, [], [])
    assert chosen("--since", "1s")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--fail-on", "errors"], 3),
        (["--fail-on", "failures,unparsable"], 3),
        (["--fail-on", "unparsable"], 0),
        (["--fail-on", "failures", "--until", "2026-11-06"], 0),
        (["--fail-on", "anomalies", "--run", "r4"], 0),
        (["--fail-on", "anomalies", "--run", "r5"], 3),
    ],
)
def test_exit_code_for_scripts(
    history: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    reported(capsys, history, *arguments, code=code)


def test_terminal_says_what_counts(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (history / "r1" / "events.jsonl").write_bytes(b"\x1b[2J bad\n" + epochs("r1", 10.0, 1.0, 1))
    evil = {"reason": "\x1b[31m\u202e\x07red", "run_id": "r7", "level": "error"}
    (history / "r7" / "events.rank1.jsonl").write_bytes(line("training_failed", **evil))
    assert main(["logs", str(history)]) == 0
    said = capsys.readouterr().out
    assert "8 files" in said
    assert "51 lines" in said
    assert "error     2 lines, 4.000% of the lines" in said
    assert "unparsable  1 lines, in no rate" in said
    assert r"\x1b[2J bad" in said
    assert set("\x1b\x07\u202e").isdisjoint(said)
    assert "�[31m" in said
    for text in (
        "killed",
        "by signal 9",
        "epochs take longer",
        "29.4",
        "Time line from 2026-11-01T00:00:00Z",
    ):
        assert text in said, text


class Failing(tiny.Tiny):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 1:
            raise ValueError("on purpose")
        return super().training_step(batch, batch_idx)


def test_a_real_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="on purpose"):
        tiny.fit(Telemetry(metrics=False, model_name="A"), model=Failing(), max_epochs=3)
    capsys.readouterr()
    found = reported(capsys, "--fail-on", "failures", code=3)
    (failure,) = found["failures"]
    assert (failure["event"], failure["reason"], failure["error_type"], failure["last_message"]) == (
        "training_failed",
        "exception",
        "ValueError",
        "on purpose",
    )
    (run,) = found["runs"]["latest"]
    log = [json.loads(text) for text in next(tmp_path.glob("runs/*/events.jsonl")).read_text().splitlines()]
    assert (run["run_id"], run["model"], run["state"], run["epochs"]) == (log[0]["run_id"], "A", "failed", 1)
    assert run["lines"] == found["lines"]["read"] == len(log)
    completed = [event for event in log if event["event"] == "training_epoch_completed"]
    assert found["slowest_epochs"][0]["seconds"] == completed[0]["duration_seconds"]
    assert run["loss"] == completed[0]["loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "logs: 'nowhere': no such file or folder"),
        (["."], "logs: '.': no events.jsonl in this folder"),
        (["--since", "yesterday"], "argument --since: 'yesterday' must be a time such as"),
        (["--slow", "1"], "argument --slow: '1' must be a number above 1"),
        (["--fail-on", "rain"], "argument --fail-on: 'rain' must be one of errors, failures"),
        (["--html", "no/where.html", "log"], "logs: --html='no/where.html': there is no such folder"),
        (["--memory", "much", "log"], "logs: --memory='much': "),
        (["--memory", "1MB", "log"], "logs: --memory"),
        (["--top", "0"], "must be a whole number of at least 1"),
        (["--colour"], "see liquid-train logs --help"),
    ],
)
def test_bad_input_is_told_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log").write_bytes(line("x"))
    assert main(["logs", *arguments]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_missing_duckdb_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    (tmp_path / "events.jsonl").write_bytes(line("x"))
    assert main(["logs", str(tmp_path)]) == 1
    assert "pip install 'liquid-train[logs]'" in capsys.readouterr().err


def test_every_key_is_documented(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documented = set(re.findall(r"`(\w+)`", DOCUMENT.read_text(encoding="utf-8")))

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return {*value, *(key for part in value.values() for key in keys(part))}
        return {key for part in value for key in keys(part)} if isinstance(value, list) else set()

    found = reported(capsys, history)
    del found["levels"], found["events"]
    assert keys(found) <= documented


def test_bar_is_on_a_terminal_and_not_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes((line("x") + b"\n") * 1000)
    mine, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "liquid_train", "logs", "--json", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=its,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(its)
    report, _ = process.communicate(timeout=60)
    bar = os.read(mine, 100_000).decode()
    os.close(mine)
    assert json.loads(report)["lines"]["read"] == 1000
    size = (tmp_path / "events.jsonl").stat().st_size
    assert f"/{size / 1000:.1f} kB" in bar
