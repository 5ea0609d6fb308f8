"""What `liquid-train clean` shows."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from liquid_train.housekeeping.capacity import Series, Written, written_a_day
from liquid_train.housekeeping.folders import KINDS, Stranger
from liquid_train.housekeeping.live import DAY
from liquid_train.housekeeping.retention import Decision
from liquid_train.housekeeping.units import age, size

_PIPED_WIDTH = 160
_BYTES_A_SAMPLE = 2


def show_decisions(decisions: Sequence[Decision], strangers: Sequence[Stranger]) -> None:
    """Show what happens to each run, and what is left alone because it is none."""
    table = _table("", "run", "size", "frees", "why")
    for decision in decisions:
        run = decision.run
        freed = size(decision.frees) if decision.goes else ""
        table.add_row(
            *_texts("goes" if decision.goes else "stays", run.path.name, size(run.size), freed, decision.why)
        )
    for stranger in strangers:
        table.add_row(*_texts("left alone", stranger.path.name, "", "", stranger.why))
    _console().print(table)


def show_leftovers(seats: Sequence[tuple[Path, str]]) -> None:
    """Show the seats that go."""
    if seats:
        table = _table("", "seat in the spool", "")
        for seat, what in seats:
            table.add_row(*_texts("goes", str(seat), what))
        _console().print(table)


def show_capacity(runs: Sequence[Written], exporters: Sequence[Series], interval: float) -> None:
    """Show bytes by run and kind, and what Prometheus stores of the runs that are live."""
    out, table = _console(), _table("run", *KINDS, "all", "lasted", "grows a day")
    for run in runs:
        lasted = age(run.seconds) if run.seconds is not None else ""
        grows = size(run.grows) if run.grows is not None else ""
        kinds = (size(run.run.sizes[kind]) for kind in KINDS)
        table.add_row(*_texts(run.run.path.name, *kinds, size(run.run.size), lasted, grows))
    sums = [sum(run.run.sizes[kind] for run in runs) for kind in KINDS]
    table.add_row(*_texts("together", *map(size, sums), size(sum(sums)), "", ""), style="bold")
    out.print(table)
    a_day = written_a_day(runs, time.time())
    if a_day is not None:
        out.print(Text(f"{size(a_day)} a day have come since the first of these runs began"))
    out.print()
    if not exporters:
        out.print(
            Text("series: no exporter lives; ask while a run is live, and they are counted in its /metrics")
        )
    for exporter in exporters:
        _show_series(out, exporter, interval)


def _show_series(out: Console, exporter: Series, interval: float) -> None:
    table = _table("series of", "series", "samples a day", "stored a day")
    rows = [(model or "the host and all runs", count) for model, count in sorted(exporter.by_model.items())]
    for name, count in [*rows, ("together", exporter.total)]:
        samples = count * DAY / interval
        table.add_row(*_texts(name, f"{count:,}", f"{samples:,.0f}", size(samples * _BYTES_A_SAMPLE)))
    out.print(table)
    out.print(
        Text(f"counted at {exporter.url}, scraped every {interval:g} s, {_BYTES_A_SAMPLE} bytes a sample")
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _texts(*values: str) -> list[Text]:
    """Texts without anything that a terminal would act on."""
    return [Text("".join(c if c.isprintable() else "�" for c in value)) for value in values]


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
