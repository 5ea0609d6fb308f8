"""`liquid-train clean --report`: what runs take, in exact numbers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tiny
from rundirs import bytes_in, make

from liquid_telemetry import Telemetry
from liquid_telemetry.spool import spool_dir, wait_exporter
from liquid_train.__main__ import main
from liquid_train.housekeeping import capacity
from liquid_train.housekeeping.units import age, read_age, read_size, size

pytestmark = [pytest.mark.filterwarnings(noise) for noise in tiny.LIGHTNING_NOISE]


@pytest.fixture
def served_run() -> Iterator[Path]:
    """The directory of a run that has just ended, shown by its exporter."""
    with tiny.workplace(Path.cwd(), exporter=True):
        tiny.fit(Telemetry(port=0, model_name="A"), max_epochs=2)
        address = wait_exporter(spool_dir(), 20)
        assert address is not None
        yield tiny.only_run().dir
        psutil.Process(address.pid).kill()


def test_real_run_is_kept_until_its_exporter_has_told_and_reported(
    served_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = served_run
    assert main(["clean", "--keep", "0", "--yes"]) == 0
    assert "live: the exporter still tells of its end" in capsys.readouterr().out
    assert run.is_dir()
    assert main(["clean", "--report", "--scrape-interval", "10s"]) == 0
    said = capsys.readouterr().out
    (series,) = capacity.served([spool_dir()])
    row = next(line.split() for line in said.splitlines() if line.startswith(run.name))
    assert f"{row[1]} {row[2]}" == size((run / "events.jsonl").stat().st_size)
    assert f"{row[3]} {row[4]}" == size((run / "traces.jsonl").stat().st_size)
    mine = next(line.split() for line in said.splitlines() if line.startswith("A "))
    assert mine[1] == str(series.by_model["A"])
    assert mine[2] == f"{series.by_model['A'] * 8640:,}"
    assert series.by_model["A"] > 50


def test_capacity_in_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    folder = make("run")
    began = time.time() - 2 * 3600
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
    (folder / "events.jsonl").write_text(json.dumps({"event": "training_started", "timestamp": at}) + "\n")
    text = (folder / "events.jsonl").stat().st_size + 110
    assert main(["clean", "--report"]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("run "[:3] + " ") and "kB" in line)
    assert row.split()[7:9] == ["2", "kB"]
    assert row.endswith(f"2 hours  {size(text * 12)}".ljust(len(row) - row.index("2 hours")))
    assert f"{size(bytes_in(folder))} a day have come since" in said
    assert "no exporter lives" in said


def test_series_are_counted_by_model() -> None:
    text = 'a{model_name="M"} 1\na{model_name="N"} 1\nb 2\n# TYPE h histogram\nh_bucket{model_name="M",le="1"} 1\n'
    assert capacity.count_series(text) == {"M": 2, "N": 1, "": 1}


def test_units() -> None:
    assert [read_size(text) for text in ("0", "1.5kB", "20GB", "2 GiB")] == [0, 1500, 20 * 10**9, 2**31]
    assert [read_age(text) for text in ("90s", "2h", "1.5d", "8w")] == [90, 7200, 129_600, 4_838_400]
    assert [size(n) for n in (999, 1000, 2.5e9, 3e15)] == ["999 B", "1 kB", "2.5 GB", "3,000.0 TB"]
    assert [age(s) for s in (5, 200, 86_400, 30 * 86_400)] == ["5 s", "3.33 minutes", "24 hours", "30 days"]
