"""The benchmarks run: what they measure is not judged here."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )


ROWS = (
    "| **Telemetry**, everything on |",
    "| **Telemetry**, a span for every batch |",
    "| Telemetry, 10 scrapes a second |",
    "| dead |",
    "| `import liquid_telemetry`, after Lightning |",
)


def test_every_part_prints_its_table():
    done = run("benchmarks.telemetry", "--batches=30", "--rounds=1", "--only=everything on")
    assert done.returncode == 0, done.stderr
    assert [row for row in ROWS if row not in done.stdout] == []


def test_a_part_that_is_not_there_is_told_in_one_line():
    done = run("benchmarks.telemetry", "batch")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "no such part: batch; there are batches, alternate, own, scrapes, collector, ends"
    )


def test_a_short_soak_counts_exactly():
    done = run("benchmarks.soak", "--batches=2000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "every count is exact"
