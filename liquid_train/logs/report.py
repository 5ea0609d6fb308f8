"""What a report says of the lines of a store: numbers and names as JSON has them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from liquid_train.logs.anomalies import anomalies
from liquid_train.logs.store import Store

SCHEMA = 1
"""Version of the report: it changes when a key goes or means something else, not when one is added."""
LEVELS = ("debug", "info", "warning", "error", "critical")
_SEVERITY = {
    "debug": 0,
    "info": 1,
    "warning": 2,
    "warn": 2,
    "error": 3,
    "exception": 3,
    "critical": 4,
    "fatal": 4,
}
_STEPS = (1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86400, 7 * 86400, 28 * 86400, 364 * 86400)
_BUCKETS = 60
_MAX_RUNS, _MAX_EVENTS = 1000, 100
_ENDS = "('training_completed', 'training_interrupted', 'training_failed')"
_SEVERITIES = ", ".join(f"'{name}': {number}" for name, number in _SEVERITY.items())


@dataclass(frozen=True)
class Choice:
    """Which lines are reported, and how.

    Args:
        since: The first moment, in UTC.
        until: The moment after the last.
        run: Run id.
        model: Name of the model.
        level: The least severe level.
        slow: How many times the median an operation takes that is slow.
        top: How many of the slowest are told.
    """

    since: datetime | None = None
    until: datetime | None = None
    run: str | None = None
    model: str | None = None
    level: str | None = None
    slow: float = 2.0
    top: int = 10


def report(store: Store, choice: Choice) -> dict[str, Any]:
    """Return the report of what the store has read; times are UTC, durations seconds, rates shares of the lines."""
    _choose(store, choice)
    store.db.execute(_EPOCHS)
    reading = store.reading
    totals = store.rows(_TOTALS)[0]
    lines = totals["lines"]
    return {
        "schema": SCHEMA,
        "made": _text(datetime.now(timezone.utc).replace(tzinfo=None)),
        "choice": {name: _text(value) for name, value in asdict(choice).items()},
        "files": {"read": reading.files, "bytes": reading.size, "damaged": reading.damaged},
        "lines": {
            "read": reading.lines,
            "unparsable": reading.unparsable,
            "chosen": lines,
            "without_time": totals["without_time"],
        },
        "unparsable": reading.shown,
        "first": _text(totals["first"]),
        "last": _text(totals["last"]),
        "levels": {row["level"]: row["lines"] for row in store.rows(_LEVELS)},
        "events": {row["event"]: row["lines"] for row in store.rows(_EVENTS)},
        "rates": {
            "error_lines": totals["errors"],
            "error_rate": totals["errors"] / lines if lines else 0.0,
            "slow_lines": totals["slow"],
            "slow_rate": totals["slow"] / lines if lines else 0.0,
        },
        "failures": _plain(store.rows(_CAUSES, "%_failed")),
        "interruptions": _plain(store.rows(_CAUSES, "training_interrupted")),
        "slowest_epochs": _plain(store.rows(_SLOWEST.format("seconds"), choice.top)),
        "slowest_batches": _plain(store.rows(_SLOWEST.format("seconds_a_batch"), choice.top)),
        "timeline": _timeline(store, totals["first"], totals["last"]),
        "runs": {"number": totals["runs"], "latest": _plain(store.rows(_RUNS, _MAX_RUNS))},
        "anomalies": _plain(anomalies(store)),
    }


def _choose(store: Store, choice: Choice) -> None:
    """Make the table ``chosen`` of the parsable lines that are asked for, with their severity and slowness."""
    store.db.execute(_TYPICAL)
    conditions: list[str] = []
    values: list[Any] = [choice.slow]
    for column, wanted in (("time >=", choice.since), ("time <", choice.until), ("run =", choice.run),
                           ("model =", choice.model)):  # fmt: skip
        if wanted is not None:
            conditions.append(f"{column} ?")
            values.append(wanted)
    if choice.level is not None:
        conditions.append("severity >= ?")
        values.append(_SEVERITY[choice.level])
    store.db.execute(_CHOSEN + "".join(f" AND {condition}" for condition in conditions), values)


def _timeline(store: Store, first: datetime | None, last: datetime | None) -> dict[str, Any]:
    """Lines by time, in at most ``_BUCKETS`` steps, those without lines included."""
    if first is None or last is None:
        return {"step_seconds": 0, "steps": []}
    span = (last - first).total_seconds()
    step = next((step for step in _STEPS if span < step * (_BUCKETS - 1)), int(span / (_BUCKETS - 1)) + 1)
    rows = store.rows(_TIMELINE, step)
    by_start = {row["start"]: row for row in rows}
    none = {"lines": 0, "warnings": 0, "errors": 0, "slow": 0}
    begin, end = min(by_start), max(by_start)
    steps = [by_start.get(start, {"start": start, **none}) for start in range(begin, end + step, step)]
    for row in steps:
        row["start"] = _text(datetime.fromtimestamp(row["start"], timezone.utc).replace(tzinfo=None))
    return {"step_seconds": step, "steps": steps}


def _text(value: Any) -> Any:
    return f"{value.isoformat()}Z" if isinstance(value, datetime) else value


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: _text(value) for name, value in row.items()} for row in rows]


_TYPICAL = f"""
CREATE OR REPLACE TEMP TABLE typical AS
SELECT model, event, stage, median(duration) AS usual, count(*) AS lines FROM lines
WHERE ok AND duration IS NOT NULL AND event NOT IN {_ENDS} GROUP BY ALL HAVING count(*) >= 5
"""  # noqa: S608

_CHOSEN = f"""
CREATE OR REPLACE TABLE chosen AS SELECT * FROM (
    SELECT lines.*, MAP {{{_SEVERITIES}}}[level] AS severity,
        coalesce(duration > ? * usual, false) OR coalesce(lines.event = 'performance_regression_detected', false)
            AS slow
    FROM lines LEFT JOIN typical ON lines.event = typical.event
        AND lines.model IS NOT DISTINCT FROM typical.model AND lines.stage IS NOT DISTINCT FROM typical.stage)
WHERE ok
"""  # noqa: S608

_TOTALS = """
SELECT count(*) AS lines, count(*) FILTER (time IS NULL) AS without_time, min(time) AS first, max(time) AS last,
    count(*) FILTER (severity >= 3) AS errors, count(*) FILTER (slow) AS slow, count(DISTINCT run) AS runs
FROM chosen
"""

_LEVELS = (
    "SELECT coalesce(level, 'none') AS level, count(*) AS lines FROM chosen GROUP BY 1 ORDER BY 2 DESC, 1"
)

_EVENTS = f"""
SELECT coalesce(event, 'none') AS event, count(*) AS lines FROM chosen
GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_MAX_EVENTS}
"""  # noqa: S608

_CAUSES = """
SELECT event, reason, error_type, count(*) AS lines, count(DISTINCT run) AS runs, max(time) AS last,
    arg_max(run, time) AS last_run, arg_max(model, time) AS last_model, arg_max(message, time) AS last_message
FROM chosen WHERE event LIKE ? GROUP BY event, reason, error_type ORDER BY lines DESC, last DESC, reason, error_type
"""

_EPOCHS = """
CREATE OR REPLACE TEMP TABLE epochs AS
SELECT run, model, epoch, max(duration) AS seconds, max(batches) AS batches,
    max((duration - coalesce(validation, 0)) / nullif(batches, 0)) AS seconds_a_batch
FROM chosen WHERE event = 'training_epoch_completed' AND duration IS NOT NULL GROUP BY run, model, epoch
"""

_SLOWEST = """
WITH top AS (SELECT * FROM epochs WHERE {0} IS NOT NULL ORDER BY {0} DESC, run, epoch LIMIT ?),
usual AS (SELECT run, median({0}) AS middle FROM epochs WHERE run IN (SELECT run FROM top) GROUP BY run)
SELECT top.run AS run_id, model, epoch, batches, {0}, {0} / nullif(middle, 0) AS times_median
FROM top LEFT JOIN usual ON top.run = usual.run ORDER BY {0} DESC, top.run, epoch
"""

_TIMELINE = """
SELECT floor(epoch(time) / $1)::BIGINT * $1 AS start, count(*) AS lines, count(*) FILTER (severity = 2) AS warnings,
    count(*) FILTER (severity >= 3) AS errors, count(*) FILTER (slow) AS slow
FROM chosen WHERE time IS NOT NULL GROUP BY 1 ORDER BY 1
"""

_RUNS = f"""
SELECT run AS run_id, arg_min(model, time) AS model, min(time) AS first, max(time) AS last, count(*) AS lines,
    count(*) FILTER (severity >= 3) AS errors,
    coalesce(replace(arg_max(event, time) FILTER (event IN {_ENDS}), 'training_', ''), 'no end') AS state,
    arg_max(reason, time) FILTER (event IN {_ENDS}) AS reason,
    count(DISTINCT epoch) FILTER (event = 'training_epoch_completed') AS epochs,
    median(duration) FILTER (event = 'training_epoch_completed') AS epoch_seconds,
    arg_max(loss, time) FILTER (event = 'training_epoch_completed') AS loss,
    arg_max(val_loss, time) FILTER (event = 'training_epoch_completed') AS val_loss
FROM chosen WHERE run IS NOT NULL GROUP BY run ORDER BY last DESC, run LIMIT ?
"""  # noqa: S608
