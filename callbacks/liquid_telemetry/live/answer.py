"""The data behind the page, as objects of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from liquid_telemetry.live.log import Log
from liquid_telemetry.live.points import Points
from liquid_telemetry.live.summary import Summary

Query = Mapping[str, Sequence[str]]


def overview(
    runs: Sequence[Summary], now: float, host: Mapping[str, Any] | None, source: str
) -> dict[str, Any]:
    """Every run in a few words.

    Args:
        runs: In the order to show them.
        now: Unix seconds, from which ages are told.
        host: Resources of the host.
        source: ``exporter`` or the folder that is looked at.
    """
    return {"now": now, "source": source, "host": host, "runs": [run.to_json() for run in runs]}


def detail(run: Summary, points: Points, log: Log | None, query: Query) -> dict[str, Any]:
    """One run whole, or what is new of it.

    Args:
        run: The run in a few words.
        points: Its course.
        log: Its epochs and events, where it has a log.
        query: What is known: ``since`` (the time of the last point that stays) with ``version``, ``epochs`` and
            ``events`` (how many have been seen).
    """
    version, since = _number(query, "version"), _number(query, "since")
    known = since if version == points.version else float("-inf")
    kept = points.kept
    return {
        "run": run.to_json(),
        "points": {
            "version": points.version,
            "anew": known != since or since == float("-inf"),
            "kept": points.times[kept - 1] if kept else None,
            "columns": points.tail(known),
        },
        "epochs": log.epochs.after(int(_number(query, "epochs", 0))) if log else None,
        "events": log.events.after(int(_number(query, "events", 0))) if log else None,
    }


def _number(query: Query, name: str, default: float = float("-inf")) -> float:
    """Read a number of the query; what is none counts as not given."""
    try:
        value = float(query[name][0])
    except (KeyError, IndexError, ValueError):
        return default
    return value if abs(value) < 1e15 else default
