"""Readable lines on a terminal, beside a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import structlog

from liquid_telemetry.logs.render import brief


class Terminal:
    """Prints events for people, if stderr is a terminal; through the progress bar when one is shown."""

    def __init__(self, print_line: Any = None) -> None:
        self.enabled = sys.stderr.isatty()
        self._print = print_line or (lambda line: print(line, file=sys.stderr))  # noqa: T201
        self._renderer = structlog.dev.ConsoleRenderer(colors=self.enabled, sort_keys=False, pad_event_to=26)

    def show(self, event: Mapping[str, Any]) -> None:
        """Print one event."""
        if self.enabled:
            time = str(event.get("timestamp", ""))[11:19]
            shown = {"timestamp": time, "level": event.get("level"), **brief(event)}
            self._print(self._renderer(None, "", shown))
