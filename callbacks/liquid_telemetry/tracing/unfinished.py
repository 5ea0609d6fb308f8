"""Spans that are open, written down, so that somebody else can finish the trace when this process dies.

Standard library only: the exporter process reads what the training process wrote.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from liquid_telemetry import __version__
from liquid_telemetry.files import LineFile
from liquid_telemetry.signals import NAMESPACE, TRACER
from liquid_telemetry.spool import write_atomically
from liquid_telemetry.tracing.otlp_json import ERROR, Attributes, LineEncoder, SpanData

FILE = "unfinished_spans.json"
_TAIL = 4 * 1024 * 1024


def write_unfinished(folder: Path, resource: Attributes, spans: Iterable[SpanData]) -> None:
    """Write down the open spans; their ends are not known yet.

    Raises:
        OSError: It cannot be written.
    """
    content = json.dumps({"resource": dict(resource), "spans": [asdict(span) for span in spans]})
    folder.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it
    write_atomically(folder / FILE, content.encode())


def forget_unfinished(folder: Path) -> None:
    """The trace is whole."""
    (folder / FILE).unlink(missing_ok=True)


def innermost(folder: Path) -> dict[str, str]:
    """Return the names of the open span that is within all others, as ``trace_id`` and ``span_id``; {} without one."""
    try:
        *_, last = json.loads((folder / FILE).read_bytes())["spans"]
        return {name: str(last[name]) for name in ("trace_id", "span_id")}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def finish_trace(folder: Path, traces: Path, end_ns: int, cause: Mapping[str, str]) -> int:
    """Append the spans that a dead process left open, and return how many.

    Args:
        folder: The run directory.
        traces: The trace file to append to.
        end_ns: Unix nanoseconds when the process was found dead.
        cause: ``reason``, ``outcome`` (``failed`` unless given) and whatever else is known, added as attributes.

    Raises:
        OSError: The files cannot be read or written.
        ValueError: The notes are damaged.
    """
    try:
        notes: dict[str, Any] = json.loads((folder / FILE).read_bytes())
    except FileNotFoundError:
        return 0
    tail = _tail(traces)
    unwritten = [span for span in notes["spans"] if f'"spanId":"{span["span_id"]}"'.encode() not in tail]
    spans = [_closed(span, end_ns, cause) for span in unwritten]
    file = LineFile(traces)
    try:
        if spans:
            file.write(LineEncoder(notes["resource"], TRACER, __version__).line(spans))
    finally:
        file.close()
    forget_unfinished(folder)
    return len(spans)


def _tail(traces: Path) -> bytes:
    """The end of the trace file: a process may die after it has closed a span and before it has noted that."""
    try:
        with traces.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read()
    except FileNotFoundError:
        return b""


def _closed(span: Mapping[str, Any], end_ns: int, cause: Mapping[str, str]) -> SpanData:
    attributes = {**span["attributes"], NAMESPACE + "outcome": "failed"}
    attributes |= {NAMESPACE + key: value for key, value in cause.items()}
    failed = attributes[NAMESPACE + "outcome"] == "failed"
    return SpanData(
        name=span["name"],
        trace_id=span["trace_id"],
        span_id=span["span_id"],
        parent_id=span["parent_id"],
        start_ns=span["start_ns"],
        end_ns=end_ns,
        attributes=attributes,
        status=ERROR if failed else 0,
        message=cause.get("reason", "unknown") if failed else "",
        links=tuple((trace, linked) for trace, linked in span["links"]),
    )
