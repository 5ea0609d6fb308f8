"""`liquid-train logs` beside a loop over lines, on a log of gigabytes: same counts, which is faster, what memory.

python -m benchmarks.logs [--gigabytes 2] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

EPOCHS = 500
_BAD = b"Traceback (most recent call last):\n"
_HALF = b'{"timestamp": "2026-11-01T00:00:00Z", "level": "info", "ev'


def write_log(path: Path, size: int) -> None:
    """Write a log of about `size` bytes: runs of 500 epochs, every tenth failed, one line in 20,000 unparsable."""
    chance = random.Random(0)
    with path.open("wb") as out:
        run = 0
        while out.tell() < size:
            write_run(out, f"20261101-{run:06d}", run, chance)
            run += 1
        out.write(_HALF)


def write_run(out: BinaryIO, name: str, number: int, chance: random.Random) -> None:
    """Write the events of one run."""
    common = {
        "logger": "liquid_telemetry",
        "run_id": name,
        "model_name": f"Model{number % 5}",
        "trace_id": "a" * 32,
    }
    began = 1_790_000_000 + number * 1000

    def event(second: float, level: str, text: str, **fields: Any) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%S.000001Z", time.gmtime(began + second))
        out.write(
            json.dumps({"timestamp": at, "level": level, "event": text, **common, **fields}).encode() + b"\n"
        )
        if chance.random() < 1 / 20_000:
            out.write(_BAD)

    event(0, "info", "training_started", stage="train", max_epochs=EPOCHS)
    phases = ("data", "transfer", "forward", "backward", "optimizer", "validation", "checkpoint", "other")
    for epoch in range(EPOCHS):
        seconds = 1 + chance.random() / 10 + 4 * (chance.random() < 0.001)
        shares = {phase: seconds / len(phases) for phase in phases}
        event(epoch * 2, "info", "training_epoch_completed", epoch=epoch, loss=1 / (epoch + 1), val_loss=0.5,
              duration_seconds=seconds, batches=100, samples=6400, phases=shares, metrics={"f1": 0.5})  # fmt: skip
        if chance.random() < 0.01:
            event(epoch * 2, "warning", "training_nonfinite_loss", epoch=epoch, batch=1, value="nan", count=1)
    if number % 10 == 9:
        reason = chance.choice(["exception", "killed", "out_of_memory"])
        event(
            EPOCHS * 2, "error", "training_failed", reason=reason, error_type="E", error_message="it failed"
        )
    else:
        event(EPOCHS * 2, "info", "training_completed", duration_seconds=EPOCHS * 2.0)


def by_hand(path: Path) -> dict[str, Any]:
    """Count in a loop over lines what everybody counts."""
    lines = unparsable = 0
    levels, events, failures = Counter[str](), Counter[str](), Counter[str]()
    with path.open("rb") as file:
        for raw in file:
            if not raw.strip():
                continue
            lines += 1
            try:
                fields = json.loads(raw)
            except ValueError:
                unparsable += 1
                continue
            levels[fields["level"]] += 1
            events[fields["event"]] += 1
            if fields["event"] == "training_failed":
                failures[fields["reason"]] += 1
    return {
        "lines": lines,
        "unparsable": unparsable,
        "levels": levels,
        "events": events,
        "failures": failures,
    }


def ours(report: dict[str, Any]) -> dict[str, Any]:
    """The same numbers of a report."""
    failures = {failure["reason"]: failure["lines"] for failure in report["failures"]}
    counts = {name: report["lines"][key] for name, key in (("lines", "read"), ("unparsable", "unparsable"))}
    return {**counts, "levels": report["levels"], "events": report["events"], "failures": failures}


def timed(command: list[str]) -> tuple[float, float, float, dict[str, Any]]:
    """Run a command; return its seconds, those of its processors, its peak memory in MB, and the JSON it printed."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = json.load(process.stdout)
    process.stdout.close()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{command} ended with {status}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, said


def main() -> None:
    """Write the log, read it both ways in turn, and print the figures."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--gigabytes", type=float, default=2.0)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--by-hand", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.by_hand is not None:
        json.dump(by_hand(chosen.by_hand), sys.stdout)
        return
    with tempfile.TemporaryDirectory(prefix="liquid-train-benchmark-") as folder:
        compare(Path(folder) / "events.jsonl", chosen.gigabytes, chosen.repeats)


def compare(path: Path, gigabytes: float, repeats: int) -> None:
    """Print seconds and memory of both ways, and their ratio; end with an error where their counts differ."""
    write_log(path, int(gigabytes * 1e9))
    loop = [sys.executable, "-m", "benchmarks.logs", "--by-hand", str(path)]
    command = [sys.executable, "-m", "liquid_train", "logs", "--json", str(path)]
    hand, mine = [], []
    for _ in range(repeats):
        hand.append(timed(loop))
        mine.append(timed(command))
        if ours(mine[-1][3]) != hand[-1][3]:
            raise SystemExit(f"counts differ:\n{ours(mine[-1][3])}\n{hand[-1][3]}")
    counts = hand[0][3]
    print(
        f"{path.stat().st_size / 1e9:.2f} GB, {counts['lines']:,} lines, {counts['unparsable']:,} unparsable"
    )
    for name, results in (("a loop over lines", hand), ("liquid-train logs", mine)):
        seconds = [result[0] for result in results]
        processors = statistics.median(result[1] for result in results)
        memory = max(result[2] for result in results)
        spread = f"({min(seconds):.1f} to {max(seconds):.1f})"
        middle = statistics.median(seconds)
        print(f"{name:18} {middle:6.1f} s {spread}, {processors:.1f} s of processors, {memory:,.0f} MB")
    ratios = [by[0] / us[0] for by, us in zip(hand, mine, strict=True)]
    print(f"ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}); counts equal")


if __name__ == "__main__":
    main()
