"""Event logs that a test makes up."""

from __future__ import annotations

import json
from typing import Any


def line(event: str, at: str = "2026-11-01T00:00:00Z", level: str = "info", **fields: Any) -> bytes:
    return json.dumps({"timestamp": at, "level": level, "event": event, **fields}).encode()


def epochs(run: str, seconds: float, loss: float, day: int, count: int = 6, end: str = "completed") -> bytes:
    common = {"run_id": run, "model_name": "M"}
    made = [line("training_started", f"2026-11-{day:02d}T00:00:00Z", **common)]
    for epoch in range(count):
        fields = {"epoch": epoch, "loss": loss / (epoch + 1), "batches": 10, "phases": {"validation": 1.0}}
        at = f"2026-11-{day:02d}T00:{epoch + 1:02d}:00Z"
        duration = seconds * (3 if epoch == 2 and run == "r3" else 1)
        made.append(line("training_epoch_completed", at, duration_seconds=duration, **fields, **common))
    level, reason = ("error", "killed") if end == "failed" else ("info", None)
    last = f"2026-11-{day:02d}T01:00:00Z"
    made.append(line(f"training_{end}", last, level, reason=reason, error_message="by signal 9", **common))
    return b"\n".join(made) + b"\n"
