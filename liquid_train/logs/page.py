"""A report as one page: no script, nothing from elsewhere, every text of a log escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from liquid_train.logs.plots import points, stacked
from liquid_train.logs.table import WHAT, plain

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1d21; --dim: #56606a; --paper: #fff; --panel: #f5f7f9; --line: #d9dee3;
  --lines: #2563c9; --warnings: #855900; --errors: #b3261e; --slow: #8b3fc4 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --dim: #a3adb7; --paper: #14171a; --panel: #1c2024;
  --line: #363c43; --lines: #7aa8ff; --warnings: #e0b04a; --errors: #ff8178; --slow: #c792ff } }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif }
h1 { font-size: 1.3rem; margin: 0 } h2 { font-size: 1.1rem; margin: 1.5rem 0 .4rem }
p { margin: .2rem 0; color: var(--dim) }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { font-weight: 600; white-space: nowrap } td { overflow-wrap: break-word; max-width: 28rem }
.number { text-align: right; font-variant-numeric: tabular-nums }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .6rem; margin: 1rem 0 }
.facts div { background: var(--panel); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .7rem }
.facts b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums }
.bad b { color: var(--errors) } svg { display: block; width: 100%; min-width: 40rem; height: auto }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif } .grid { stroke: var(--line) }
.lines { fill: var(--lines) } .warnings { fill: var(--warnings) } .errors { fill: var(--errors) }
.slow { fill: var(--slow) } .key::before { content: "■ " } .key.lines { color: var(--lines) }
.key.warnings { color: var(--warnings) } .key.errors { color: var(--errors) }
"""
_MOST_ROWS = 100

Columns = Sequence[tuple[str, str]]


def page(report: dict[str, Any]) -> str:
    """Return the HTML of a report."""
    runs = report["runs"]
    span = f"{report['first']} to {report['last']}" if report["first"] else "no line with a time"
    body = [
        f"<h1>Event logs</h1><p>{escape(span)}; made {escape(report['made'])}{_choice(report['choice'])}</p>",
        _facts(report),
        _timeline(report["timeline"]),
        _durations(runs["latest"]),
        _table("Levels", [("level", "level"), ("lines", "lines")],
               ({"level": level, "lines": count} for level, count in report["levels"].items())),
        _table("Failures by cause", _CAUSE, report["failures"]),
        _table("Interruptions by cause", _CAUSE, report["interruptions"]),
        _table("Unlike earlier runs of the model", _ODD,
               ({**row, "what": WHAT[row["what"]]} for row in report["anomalies"])),
        _table("Slowest epochs", _SLOW_EPOCH, report["slowest_epochs"]),
        _table("Slowest batches (mean of an epoch; single batches are in the traces)", _SLOW_BATCH,
               report["slowest_batches"]),
        _table(f"Runs ({runs['number']}, the latest first)", _RUN, runs["latest"]),
        _table("Events", [("event", "event"), ("lines", "lines")],
               ({"event": event, "lines": count} for event, count in report["events"].items())),
        _table("Unparsable lines (the first few)", [("file", "file"), ("line", "line"), ("text", "text")],
               report["unparsable"]),
        _table("Damaged files", [("file", "file"), ("cause", "cause")], report["files"]["damaged"]),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Event logs</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


_CAUSE = [("event", "event"), ("reason", "reason"), ("error", "error_type"), ("lines", "lines"), ("runs", "runs"),
          ("last", "last"), ("of run", "last_run"), ("message", "last_message")]  # fmt: skip
_ODD = [("run", "run_id"), ("model", "model"), ("what", "what"), ("epoch", "epoch"), ("value", "value"),
        ("expected", "expected"), ("of runs", "earlier_runs")]  # fmt: skip
_SLOW_EPOCH = [("run", "run_id"), ("model", "model"), ("epoch", "epoch"), ("seconds", "seconds"),
               ("times its run's median", "times_median")]  # fmt: skip
_SLOW_BATCH = [("run", "run_id"), ("model", "model"), ("epoch", "epoch"), ("batches", "batches"),
               ("seconds a batch", "seconds_a_batch"), ("times its run's median", "times_median")]  # fmt: skip
_RUN = [("run", "run_id"), ("model", "model"), ("first", "first"), ("state", "state"), ("reason", "reason"),
        ("epochs", "epochs"), ("seconds an epoch", "epoch_seconds"), ("loss", "loss"), ("val loss", "val_loss"),
        ("errors", "errors")]  # fmt: skip


def _choice(choice: dict[str, Any]) -> str:
    said = [f"{name} {choice[name]}" for name in ("since", "until", "run", "model", "level") if choice[name]]
    return f"; only {escape(plain(', '.join(said)))}" if said else ""


def _facts(report: dict[str, Any]) -> str:
    lines, rates = report["lines"], report["rates"]
    facts = [
        ("lines", f"{lines['chosen']:,}", False),
        ("unparsable lines", f"{lines['unparsable']:,}", bool(lines["unparsable"])),
        ("error lines", f"{rates['error_lines']:,}", bool(rates["error_lines"])),
        ("of the lines are errors", f"{rates['error_rate']:.3%}", bool(rates["error_lines"])),
        ("of the lines tell of something slow", f"{rates['slow_rate']:.3%}", False),
        ("runs", f"{report['runs']['number']:,}", False),
    ]
    shown = (f"<div{' class=bad' if bad else ''}><b>{value}</b>{name}</div>" for name, value, bad in facts)
    return f'<div class="facts">{"".join(shown)}</div>'


def _timeline(timeline: dict[str, Any]) -> str:
    steps = timeline["steps"]
    if not steps:
        return ""
    rows = [
        {
            "label": step["start"],
            "errors": step["errors"],
            "warnings": step["warnings"],
            "lines": step["lines"] - step["errors"] - step["warnings"],
        }
        for step in steps
    ]
    key = "".join(f'<span class="key {name}">{text}</span> ' for name, text in
                  (("errors", "errors"), ("warnings", "warnings"), ("lines", "other lines")))  # fmt: skip
    title = f"Lines, {timeline['step_seconds']:,} seconds a bar"
    return f"<h2>Time line</h2><p>{key}</p>{stacked(rows, ('errors', 'warnings', 'lines'), title)}"


def _durations(runs: Sequence[dict[str, Any]]) -> str:
    timed = [run for run in runs if run["epoch_seconds"] is not None and run["first"] is not None]
    timed.sort(key=lambda run: str(run["first"]))
    if len(timed) < 2:
        return ""
    values = [
        (run["first"], run["epoch_seconds"], "errors" if run["state"] == "failed" else "lines",
         f"{run['run_id']} ({run['model']}), {run['state']}: {run['epoch_seconds']:.4g} s")
        for run in timed
    ]  # fmt: skip
    key = '<span class="key lines">run</span> <span class="key errors">failed run</span>'
    return f"<h2>Median seconds of an epoch, by run</h2><p>{key}</p>{points(values, 'Seconds of an epoch by run')}"


def _table(title: str, columns: Columns, rows: Iterable[dict[str, Any]]) -> str:
    shown = list(rows)
    if not shown:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in columns)
    body = "\n".join(
        f"<tr>{''.join(_cell(row[key]) for _, key in columns)}</tr>" for row in shown[:_MOST_ROWS]
    )
    more = f"<p>and {len(shown) - _MOST_ROWS:,} more in the JSON</p>" if len(shown) > _MOST_ROWS else ""
    return (
        f'<h2>{escape(title)}</h2><div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>{more}"
    )


def _cell(value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = f"{value:,}" if isinstance(value, int) else plain(value)
    return f"<td{' class=number' if number else ''}>{escape(text)}</td>"
