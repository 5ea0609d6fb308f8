"""The live page: the runs of this host in one self-contained HTML file that reloads itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from liquid_telemetry.exporter.summary import Summary

RELOAD = 5
_WIDTH, _HEIGHT = 320, 90


def render(runs: Sequence[Summary], now: float) -> bytes:
    """Return the page.

    Args:
        runs: In the order to show them.
        now: Unix seconds, from which ages are told.
    """
    cards = "\n".join(_card(run, now) for run in runs) or "<p>No run at present.</p>"
    return _PAGE.format(reload=RELOAD, style=_STYLE, cards=cards).encode()


def _card(run: Summary, now: float) -> str:
    state = f"{run.state} ({run.reason})" if run.reason else run.state
    facts = {
        "epoch": _number(run.epoch, "{:.0f}"),
        "progress": _number(run.progress, "{:.0%}"),
        "loss": _number(run.loss, "{:.4g}"),
        "accuracy": _number(run.accuracy, "{:.3f}"),
        "last seen": f"{_age(now - run.seen)} ago",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    end = f"<p><strong>{escape(run.end)}</strong></p>" if run.end else ""
    return (
        f'<article class="{escape(run.state)}"><h2>{escape(run.model)} <b>{escape(state)}</b></h2>'
        f'<p><a href="/health?run={escape(run.run_id)}">{escape(run.run_id)}</a></p>'
        f"{end}<dl>{rows}</dl>{_curve(run.curve)}</article>"
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Draw the loss over the global step, scaled to its own range."""
    if len(points) < 2:
        return ""
    steps, losses = zip(*points, strict=True)
    across, up = (steps[-1] - steps[0]) or 1.0, (max(losses) - min(losses)) or 1.0
    drawn = " ".join(
        f"{(step - steps[0]) / across * _WIDTH:.1f},{(max(losses) - loss) / up * _HEIGHT:.1f}"
        for step, loss in points
    )
    title = f"Training loss from {losses[0]:.4g} to {losses[-1]:.4g}, step {steps[0]:.0f} to {steps[-1]:.0f}"
    return (
        f'<figure><svg viewBox="-2 -2 {_WIDTH + 4} {_HEIGHT + 4}" role="img" aria-label="{title}">'
        f'<polyline points="{drawn}"/></svg><figcaption>{title}</figcaption></figure>'
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1a1d21; --dim: #5d6670; --paper: #fff; --line: #d9dee3;
  --good: #12805c; --bad: #c0342b; --wait: #9a6a00; --curve: #2563c9 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --dim: #9aa4ae; --paper: #16191d;
  --line: #343a41; --good: #4cc79a; --bad: #ff7a70; --wait: #e0b04a; --curve: #7aa8ff } }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 1rem/1.45 system-ui, sans-serif;
  color: var(--ink); background: var(--paper) }
header { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline }
h1 { font-size: 1.3rem; margin: 0; flex: 1 } h2 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere }
h2 b { color: var(--wait); font-weight: 600 } .running b, .completed b { color: var(--good) }
.failed b, .stalled b { color: var(--bad) } a { color: var(--curve) }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem;
  margin-top: 1rem }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .9rem }
article p { margin: 0; font-size: .8rem; overflow-wrap: anywhere }
dl { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .6rem 0 }
dt { color: var(--dim); font-size: .75rem } dd { margin: 0; font-variant-numeric: tabular-nums }
figure { margin: 0 } svg { width: 100%; height: auto } figcaption { color: var(--dim); font-size: .75rem }
polyline { fill: none; stroke: var(--curve); stroke-width: 1.5; vector-effect: non-scaling-stroke }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{reload}">
<title>Training runs</title>
<style>{style}</style>
</head>
<body>
<header><h1>Training runs</h1><a href="/metrics">metrics</a> <a href="/health">health</a></header>
<main>
{cards}
</main>
</body>
</html>
"""
