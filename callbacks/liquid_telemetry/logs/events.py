"""The event log of a process that does not train."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from liquid_telemetry.files import LineFile
from liquid_telemetry.logs.render import render_json, timestamp
from liquid_telemetry.signals import EVENTS

LOGGER = "liquid_telemetry"


class EventLog:
    """Writes events of the catalogue as lines of JSON.

    Args:
        path: The file.
        run_id: Of the process.
        model_name: Name of the model.
    """

    def __init__(self, path: Path, run_id: str, model_name: str) -> None:
        self._file = LineFile(path)
        self._names = {"logger": LOGGER, "run_id": run_id, "model_name": model_name}

    def write(self, event: str, time_ns: int | None = None, **fields: Any) -> None:
        """Write an event, of now unless told otherwise.

        Raises:
            OSError: It cannot be written.
        """
        stamped = {"timestamp": timestamp(time_ns or time.time_ns()), "level": EVENTS[event].level}
        self._file.write(
            render_json(None, event, {**stamped, "event": event, **self._names, **fields}) + "\n"
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()
