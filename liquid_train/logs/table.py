"""A report in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from liquid_train.housekeeping.units import size

_BARS = " ▁▂▃▄▅▆▇█"
_COLOURS = {"error": "red", "critical": "red", "fatal": "red", "warning": "yellow"}
_MOST_ROWS = 15
_PIPED_WIDTH = 160

WHAT = {
    "epoch_seconds": "epochs take longer",
    "loss": "loss is higher",
    "failed": "failed, the earlier ones completed",
}
"""Kinds of anomalies in words."""


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """Print a report."""
    out = console or Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    _show_lines(out, report)
    _show_timeline(out, report["timeline"])
    latest = report["runs"]["latest"]
    _table(out, f"Runs ({report['runs']['number']}, the latest first)",
           ["run", "model", "state", "reason", "epochs", "s/epoch", "loss", "val loss", "errors"],
           ([run["run_id"], run["model"], run["state"], run["reason"], run["epochs"], run["epoch_seconds"],
             run["loss"], run["val_loss"], run["errors"]] for run in latest[:_MOST_ROWS]))  # fmt: skip
    for title, causes in (("Failures", report["failures"]), ("Interruptions", report["interruptions"])):
        _table(out, f"{title} by cause", ["reason", "error", "lines", "runs", "last", "of run", "message"],
               ([cause["reason"] or cause["event"], cause["error_type"], cause["lines"], cause["runs"], cause["last"],
                 cause["last_run"], cause["last_message"]] for cause in causes[:_MOST_ROWS]))  # fmt: skip
    _table(out, "Slowest epochs", ["run", "model", "epoch", "seconds", "times its run's median"],
           ([row["run_id"], row["model"], row["epoch"], row["seconds"], row["times_median"]]
            for row in report["slowest_epochs"]))  # fmt: skip
    _table(out, "Slowest batches (mean of an epoch; single batches are in the traces)",
           ["run", "model", "epoch", "batches", "seconds a batch", "times its run's median"],
           ([row["run_id"], row["model"], row["epoch"], row["batches"], row["seconds_a_batch"], row["times_median"]]
            for row in report["slowest_batches"]))  # fmt: skip
    _table(out, "Unlike earlier runs of the model", ["run", "model", "what", "epoch", "value", "expected", "of runs"],
           ([row["run_id"], row["model"], WHAT[row["what"]], row["epoch"], row["value"], row["expected"],
             row["earlier_runs"]] for row in report["anomalies"][:_MOST_ROWS]))  # fmt: skip


def _show_lines(out: Console, report: dict[str, Any]) -> None:
    lines, rates, files = report["lines"], report["rates"], report["files"]
    number = f"{files['read']} file{'s' if files['read'] != 1 else ''}"
    out.print(Text(f"{number}, {size(files['bytes'])}, {lines['read']:,} lines"))
    span = f"{report['first']} to {report['last']}" if report["first"] else "no time in them"
    out.print(Text(f"reported  {lines['chosen']:,} lines, {span}"))
    levels = Text("levels    ")
    for level, count in report["levels"].items():
        levels.append(f"{plain(level)} {count:,}   ", style=_COLOURS.get(level, ""))
    out.print(levels)
    for name in ("error", "slow"):
        share = f"{rates[f'{name}_rate']:.3%} of the lines"
        out.print(Text(f"{name:9} {rates[f'{name}_lines']:,} lines, {share}"))
    style = "red" if lines["unparsable"] else ""
    out.print(Text(f"unparsable  {lines['unparsable']:,} lines, in no rate", style=style))
    for line in report["unparsable"]:
        out.print(Text(f"  {line['file']}:{line['line'] or ''}: {line['text']}"))
    for file in files["damaged"]:
        out.print(Text(f"  {file['file']}: {plain(file['cause'])}", style="red"))


def _show_timeline(out: Console, timeline: dict[str, Any]) -> None:
    steps = timeline["steps"]
    if not steps:
        return
    out.print(Text(f"\nTime line from {steps[0]['start']}, {timeline['step_seconds']:,} s a step"))
    for name, style in (("lines", ""), ("warnings", "yellow"), ("errors", "red"), ("slow", "magenta")):
        counts = [step[name] for step in steps]
        if any(counts):
            out.print(Text(f"{name:9} {bars(counts)} at most {max(counts):,}", style=style))


def bars(counts: Sequence[int]) -> str:
    """A character for each count; anything above zero is seen."""
    most = max(counts, default=0) or 1
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)


def _table(out: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(title=title, title_justify="left", box=None, header_style="bold", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(value)) for value in row))
    if table.row_count:
        out.print()
        out.print(table)


def plain(value: Any) -> str:
    """A value as text, with nothing in it that a terminal would act on."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return "".join(c if c.isprintable() else "�" for c in text)[:200]
