"""Readable lines on a terminal, beside a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import structlog

_EVERY = 1.0
_POSITION = ("epoch", "batch", "loss")
_ENDS = ("training_completed", "training_interrupted", "training_failed")
_SHOWN = {
    "training_started": ("resumed_from", "parameters", "max_epochs", "batches_per_epoch", "world_size"),
    "training_epoch_completed": ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "duration_seconds"),
    "validation_completed": ("stage", "loss", "accuracy", "samples", "duration_seconds"),
    "training_nonfinite_loss": ("value", "count", "epoch", "batch"),
    "training_completed": ("epochs", "global_step", "duration_seconds"),
    "training_interrupted": ("reason", *_POSITION),
    "training_failed": ("reason", "error_type", "error_message", *_POSITION),
}
"""What a person wants of each event; the rest, and events that are not here, are for the file."""


class Terminal:
    """Prints events for people, if stderr is a terminal; epochs at most once a second, and the last.

    Progress bars redirect stderr while they are shown, so that lines appear above them.

    Args:
        print_line: Takes a line; prints to stderr by default.
        now: Monotonic seconds.
    """

    def __init__(
        self, print_line: Callable[[str], None] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        is_terminal = _is_terminal(sys.stderr)
        self.enabled = print_line is not None or is_terminal
        self._print = print_line or _to_stderr
        self._now = now
        self._epoch_due = 0.0
        self._held: Mapping[str, Any] | None = None
        self._renderer = structlog.dev.ConsoleRenderer(
            colors=is_terminal, sort_keys=False, pad_event_to=24, pad_level=False
        )

    def show(self, event: Mapping[str, Any]) -> None:
        """Print one event, shortened to a line."""
        if not self.enabled:
            return
        wanted = self._is_wanted(event)
        if event["event"] == "training_epoch_completed":
            self._held = None if wanted else event
        elif event["event"] in _ENDS and self._held is not None:
            self._write(self._held)
            self._held = None
        if wanted:
            self._write(event)

    def _write(self, event: Mapping[str, Any]) -> None:
        fields = {name: _short(event.get(name)) for name in _SHOWN[event["event"]]}
        shown = {name: value for name, value in fields.items() if value is not None}
        head = {"timestamp": event["timestamp"][11:19], "level": event["level"], "event": event["event"]}
        self._print(self._renderer(None, "", {**head, **shown}))

    def _is_wanted(self, event: Mapping[str, Any]) -> bool:
        name = event["event"]
        if name == "training_epoch_completed":
            due, now = self._epoch_due, self._now()
            self._epoch_due = now + _EVERY if now >= due else due
            return now >= due
        return name in _SHOWN and event.get("stage") != "validation"


def _is_terminal(stream: TextIO | None) -> bool:
    """False also for programs without a stderr, or that have closed it."""
    return stream is not None and not stream.closed and stream.isatty()


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
