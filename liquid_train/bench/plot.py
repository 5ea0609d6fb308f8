"""A plot of a benchmark's history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from liquid_train.errors import InputError

_COLOURS = {"slower": "tab:red", "faster": "tab:green"}


def check_plot(path: Path) -> None:
    """Require matplotlib, and an ending that it can draw.

    Raises:
        InputError: it is missing, or does not know the ending.
    """
    if find_spec("matplotlib") is None:
        raise InputError("bench: --plot needs matplotlib; pip install 'liquid-train[notebooks]'")
    from matplotlib.figure import Figure

    known = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in known:
        raise InputError(f"bench: --plot {path}: must end in one of {', '.join(known)}")


def plot_history(history: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw the median of each case over time, in milliseconds; regressions are red, improvements green.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name in sorted({name for line in history for name in line["cases"]}):
        told = [(line, line["cases"][name]) for line in history if name in line["cases"]]
        times: Any = [datetime.fromisoformat(str(line["time"]).replace("Z", "+00:00")) for line, _ in told]
        values = [1e3 * case["median_seconds"] for _, case in told]
        (drawn,) = axes.plot(times, values, marker="o", label=name)
        for time, value, (_, case) in zip(times, values, told, strict=True):
            colour = _COLOURS.get(case.get("verdict"))
            if colour:
                axes.plot(
                    time, value, marker="o", markersize=12, color=colour, alpha=0.6, zorder=drawn.zorder - 1
                )
    axes.set(title=title, xlabel="time (UTC)", ylabel="median (ms)", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="batch x length")
    figure.autofmt_xdate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise InputError(f"bench: --plot {path}: cannot be written: {error.strerror}") from error
