"""The benchmarks run: what they measure is not judged here, only that they measure what they say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import LIGHTNING_NOISE

from benchmarks.nn import cases, parts
from benchmarks.nn.__main__ import main as networks
from benchmarks.telemetry.__main__ import main
from benchmarks.telemetry.own import BLOCK, EPOCH, measure_own
from benchmarks.telemetry.variants import ours
from liquid_telemetry import Telemetry
from liquid_telemetry.tracing.budget import SPANS_PER_TRACE

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )


ROWS = {
    "batches": ["| **Telemetry**, everything on |"],
    "alternate": ["| **Telemetry**, everything on |", "| bare loop again |"],
    "own": ["| **Telemetry**, a span for every batch |"],
    "growth": ["| Telemetry, a span for every batch |"],
    "scrapes": ["| Telemetry, 10 scrapes a second |"],
}


@pytest.mark.slow
def test_every_part_within_one_process_prints_its_table():
    done = run("benchmarks.telemetry", *ROWS, "--batches=20", "--rounds=1", "--only=everything on")
    assert done.returncode == 0, done.stderr
    assert [row for rows in ROWS.values() for row in rows if row not in done.stdout] == []


@pytest.mark.slow
def test_the_parts_in_new_interpreters_take_what_one_fit_prints():
    options = {"batches": 20, "telemetry": {"otlp_endpoint": "http://127.0.0.1:9"}}
    done = run("benchmarks.telemetry.one_fit", json.dumps(options))
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"import", "setup", "batch", "processor", "end"}


def test_a_part_that_is_not_there_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.telemetry", "batch"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("no such part: batch; there are batches, alternate, own, growth, scrapes, collector, ends")
    )


@pytest.mark.filterwarnings(*LIGHTNING_NOISE)
@pytest.mark.parametrize("spans", [True, False])
def test_own_code_is_measured_with_a_span_for_every_batch_or_with_few(tmp_path, monkeypatch, spans):
    monkeypatch.setenv("LIQUID_TELEMETRY_SPOOL", str(tmp_path / "spool"))
    blocks = 8
    assert len(measure_own(ours(Telemetry, tmp_path)()[0], spans, blocks)) == blocks
    found = [
        span
        for part in tmp_path.rglob("traces*.jsonl")
        for line in part.read_text().splitlines()
        for span in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
        if span["name"] == "train batch"
    ]
    if spans:
        assert len(found) == blocks * BLOCK + EPOCH
    else:
        assert len(found) <= SPANS_PER_TRACE * 5 // 2


def test_a_short_soak_counts_exactly():
    done = run("benchmarks.soak", "--batches=2000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "every count is exact"


def test_logs_are_counted_alike_by_both_ways():
    done = run("benchmarks.logs", "--gigabytes=0.003", "--repeats=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.00 GB, 5,")
    assert "; counts equal" in done.stdout


def test_the_tables_of_the_networks(monkeypatch, capsys):
    monkeypatch.setattr(parts, "MEMORY", cases.MEMORY[:1])
    monkeypatch.setattr(parts, "STEPS", cases.STEPS[-1:])
    monkeypatch.setattr(sys, "argv", ["benchmarks.nn", "memory", "steps", "streams", "--rounds=1"])
    networks()
    printed = capsys.readouterr().out
    assert "| CfC-64, batch 64, length 64 | 9.1 | 9.1 | 6.3 |" in printed
    assert printed.count("| LTC-32 dense |") == 2
