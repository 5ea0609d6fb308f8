"""Where scenarios are played: Prometheus, Alertmanager, a pager, and the exporter of a spool."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from pager import Inbox, alertmanager, link, shipped_prometheus
from servers import Prometheus, eventually

from liquid_telemetry.spool import exporter_address, wait_exporter

JOB = Path(__file__).with_name("job.py")
STALL = 8.0
"""Least silence that is a stall here, in seconds; 60 by default."""
_ENDS = re.compile("training_(failed|interrupted|completed|stalled|recovered|nonfinite_loss)")


class Told(NamedTuple):
    """An alert that somebody was told of."""

    name: str
    runbook: str
    time: float


@dataclass
class Job:
    """A training process and what it leaves."""

    process: subprocess.Popen[bytes]
    folder: Path
    spool: Path

    def wait(self, timeout: float = 200) -> float:
        """Wait for its end; returns when it went wrong, in unix seconds."""
        self.process.wait(timeout)
        return fault_time(self.folder) or time.time()

    def trains(self) -> None:
        """Wait until an epoch has passed."""
        eventually(
            lambda: "training_epoch_completed" in ends(self.folder, every=True) or self._has_ended(), 120
        )

    def signal(self, number: int) -> float:
        """Send a signal, and wait for the end; returns when it was sent."""
        sent = time.time()
        self.process.send_signal(number)
        self.process.wait(60)
        return sent

    def _has_ended(self) -> bool:
        assert self.process.poll() is None, (self.folder / "output").read_text()
        return False


def fault_time(folder: Path) -> float | None:
    """When a job did what it was told, where it did it itself."""
    with suppress(OSError, ValueError):
        return float((folder / "fault").read_text())
    return None


def ends(folder: Path, *, every: bool = False) -> list[str]:
    """Names of the events in the logs below a folder; without ``every`` those of ends, stalls and NaN."""
    lines = (line for log in sorted(folder.rglob("events*.jsonl")) for line in log.read_text().splitlines())
    names = [json.loads(line)["event"] for line in lines]
    return [name for name in names if every or _ENDS.fullmatch(name)]


class Stage:
    """One of each, for any number of scenarios at a time.

    Args:
        home: A new directory.
        prometheus: With the shipped rules.
        inbox: The pager and Slack.
        exporter: Process id of the shared spool's.
    """

    def __init__(self, home: Path, prometheus: Prometheus, inbox: Inbox, exporter: int) -> None:
        self.home, self.prometheus, self.inbox, self.exporter = home, prometheus, inbox, exporter
        self.spool = home / "spool"
        self._groups: list[int] = []
        self._spools: list[Path] = []

    def start(self, command: Sequence[str], folder: Path, spool: Path | None = None) -> Job:
        """Start a training command in a new folder."""
        folder.mkdir(parents=True)
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(spool or self.spool),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._groups.append(process.pid)
        return Job(process, folder, spool or self.spool)

    def own_spool(self, name: str) -> Path:
        """A spool with an exporter of its own, which Prometheus scrapes too."""
        spool = self.home / "spools" / name
        spool.mkdir(mode=0o700, parents=True)
        self._spools.append(spool)
        (spool / "targets.json").write_text("[]")
        link(self.home / "prometheus", spool)
        return spool

    def totals(self, model: str) -> dict[str, int]:
        """Jobs of a model, as Prometheus has seen them."""
        found: dict[str, int] = {}
        for kind in ("started", "completed", "failed", "interrupted"):
            series = f'liquid_nn_training_jobs_{kind}_total{{model_name="{model}"}}'
            counts = self.prometheus.query(f"max by (reason) (max_over_time({series}[1h]))")
            for labels, value in counts.items():
                if value:
                    found["/".join([kind, *(reason for _, reason in labels)])] = int(value)
        return found

    def told(self, model: str) -> list[Told]:
        """The alerts of a model that the pager or, where they are warnings, the channel got."""
        return [
            told
            for post in list(self.inbox.received)
            for told in _read(post.path, post.body, post.time, model)
        ]

    def close(self) -> None:
        """End every process."""
        for group in self._groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for spool in self._spools:
            address = exporter_address(spool)
            if address is not None:
                kill(address.pid)


def kill(pid: int) -> None:
    """Kill a process that is not our child, and wait until it is gone."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.kill()
        eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def environment(spool: Path) -> dict[str, str]:
    """Of a training command."""
    ours = {
        "LIQUID_TELEMETRY_SPOOL": str(spool),
        "LIQUID_TELEMETRY_STALL": str(STALL),
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **ours}


@contextmanager
def stage(home: Path, *, shipped: bool) -> Iterator[Stage]:
    """Start the servers.

    Args:
        home: A new directory.
        shipped: Whether the intervals are those of the shipped files, else one second.
    """
    spool = home / "spool"
    spool.mkdir(mode=0o700, parents=True)
    inbox = Inbox()
    command = [
        sys.executable,
        "-m",
        "liquid_telemetry.exporter",
        "--spool",
        str(spool),
        "--port",
        "0",
        "--stay",
    ]
    exporter = subprocess.Popen([*command, "--stall", str(STALL)])
    try:
        address = wait_exporter(spool, 20)
        assert address is not None
        interval, group_wait = (None, "10s") if shipped else ("1s", "1s")
        with (
            alertmanager(home / "alertmanager", inbox, group_wait=group_wait) as manager,
            shipped_prometheus(home / "prometheus", address.port, manager, interval=interval) as prometheus,
        ):
            made = Stage(home, prometheus, inbox, exporter.pid)
            try:
                yield made
            finally:
                made.close()
    finally:
        exporter.kill()
        exporter.wait()
        inbox.close()


def _read(path: str, body: Any, time: float, model: str) -> Iterator[Told]:
    if path == "/pager":
        for alert in body["alerts"]:
            if alert["status"] == "firing" and alert["labels"].get("model_name") == model:
                yield Told(alert["labels"]["alertname"], alert["annotations"]["runbook_url"], time)
        return
    for message in body["attachments"] if body["channel"] == "#training" else ():
        firing = re.fullmatch(r"\[FIRING\] (\w+)", message["title"])
        if firing and re.search(rf"(?<![\w-]){model}(?![\w-])", message["text"]):
            yield Told(firing[1], re.search(r"<(\S+)\|Runbook>", message["text"])[1], time)  # type: ignore[index]


def count(names: Sequence[str]) -> dict[str, int]:
    """How often each name is there."""
    return dict(sorted(Counter(names).items()))
