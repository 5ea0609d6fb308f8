"""Run directories that a test makes up, under ``runs`` of the working directory."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

DAY = 86_400


def make(name: str, days: float = 0.0, ended: bool = True, **manifest: Any) -> Path:
    """A run directory, last written to so many days ago: 100 bytes of traces, 1,000 of each of two checkpoints."""
    folder = Path("runs") / name
    (folder / "checkpoints").mkdir(parents=True)
    events = [{"event": "training_started", "timestamp": "2026-11-01T00:00:00Z"}]
    events += [{"event": "training_completed", "timestamp": "2026-11-01T01:00:00Z"}] * ended
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "traces.1.jsonl").write_bytes(b"t" * 100)
    (folder / "history.jsonl").write_bytes(b"h" * 10)
    (folder / "config.yaml").write_bytes(b"c" * 5)
    for checkpoint in ("best.ckpt", "last.ckpt"):
        (folder / "checkpoints" / checkpoint).write_bytes(b"x" * 1000)
    said = {
        "run_id": name,
        "pid": None,
        "events": "events.jsonl",
        "spool": str(Path("spool").absolute()),
        **manifest,
    }
    (folder / "telemetry.json").write_text(json.dumps(said))
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


def left() -> list[str]:
    return sorted(path.name for path in Path("runs").iterdir())


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
