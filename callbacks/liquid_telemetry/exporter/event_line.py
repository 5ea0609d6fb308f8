"""The log line of an event that the exporter writes for a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from liquid_telemetry.signals import EVENTS
from liquid_telemetry.spool import RunRecord


def event_line(record: RunRecord, name: str, fields: Mapping[str, Any]) -> str:
    """Return the line, with its newline.

    Args:
        record: Of the rank whose log it is for.
        name: Of the event, as in the catalogue.
        fields: What the event says besides the common fields.
    """
    now = datetime.now(timezone.utc)
    line = {
        "timestamp": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": EVENTS[name].level,
        "event": name,
        "logger": "liquid_telemetry.exporter",
        "run_id": record.run_id,
        "model_name": record.model_name,
        "trace_id": record.trace_id,
        **fields,
    }
    return json.dumps(line, allow_nan=False) + "\n"
