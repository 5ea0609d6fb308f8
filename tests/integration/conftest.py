"""Real runs of the command line beside real servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from servers import eventually, prometheus

from liquid_telemetry.spool import RunRecord, exporter_address, read_record

__all__ = ["prometheus"]

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "japanese_vowels_cfc.yaml"


class Fit:
    """A training process and what it leaves behind."""

    def __init__(self, folder: Path, spool: Path, *options: str) -> None:
        self.folder, self.spool = folder, spool
        environment = {**os.environ, "LIQUID_TELEMETRY_SPOOL": str(spool), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "liquid_train",
            "fit",
            "--config",
            str(CONFIG),
            "--telemetry.port",
            "0",
        ]
        self.log = folder / "fit.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *options],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def run(self) -> Path:
        (run,) = (self.folder / "runs").iterdir()
        return run

    @property
    def record(self) -> RunRecord:
        """What the exporter reads of it."""
        return read_record(self.spool / "runs" / self.run.name / "0.json")

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        path = self.folder / "runs"
        if not any(path.glob("*/events.jsonl")):
            return []
        lines = [json.loads(line) for line in (self.run / "events.jsonl").read_text().splitlines()]
        return [line for line in lines if name in (None, line["event"])]

    def spans(self, name: str | None = None) -> list[dict[str, Any]]:
        lines = (self.run / "traces.jsonl").read_text().splitlines()
        spans = [
            span
            for line in lines
            for resource in json.loads(line)["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
        return [span for span in spans if name in (None, span["name"])]

    def wait(self, timeout: float = 240) -> None:
        assert self.process.wait(timeout) == 0, self.log.read_text()


@pytest.fixture
def fit(tmp_path: Path) -> Iterator[Callable[..., Fit]]:
    """Start ``liquid-train fit`` on the default config; its exporter is stopped at the end."""
    spool, started = tmp_path / "spool", []

    def start(*options: str) -> Fit:
        started.append(Fit(tmp_path, spool, *options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
    address = exporter_address(spool)
    if address is not None and psutil.pid_exists(address.pid):
        exporter = psutil.Process(address.pid)
        exporter.kill()
        eventually(lambda: not exporter.is_running())
