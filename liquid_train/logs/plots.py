"""Plots as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _FOOT, _HEAD = 900, 180, 60, 22, 10


def stacked(rows: Sequence[dict[str, Any]], parts: Sequence[str], title: str) -> str:
    """Return bars of the numbers named by ``parts``, the first lowest, for rows with a ``label`` as well."""
    most = max(sum(row[part] for part in parts) for row in rows) or 1
    step = (_WIDTH - _LEFT) / len(rows)
    bars = []
    for place, row in enumerate(rows):
        said = f"{row['label']}: " + ", ".join(f"{row[part]:,} {part}" for part in parts)
        base, drawn = 0.0, []
        for part in parts:
            tall = row[part] / most * (_HEIGHT - _FOOT - _HEAD)
            tall = max(tall, 1.0) if row[part] else 0.0
            drawn.append(_bar(part, _LEFT + place * step, base, step * 0.86, tall))
            base += tall
        bars.append(f"<g><title>{escape(said)}</title>{''.join(drawn)}</g>")
    return _plot("".join(bars), title, f"{most:,}", rows[0]["label"], rows[-1]["label"])


def points(values: Sequence[tuple[str, float, str, str]], title: str) -> str:
    """Return a point for each label, value, class and hint, in this order from left to right."""
    most = max(value for _, value, _, _ in values) or 1.0
    step = (_WIDTH - _LEFT) / len(values)
    dots = [
        f'<circle class="{kind}" cx="{_LEFT + (place + 0.5) * step:.1f}" cy="{_level(value / most):.1f}" r="3.5">'
        f"<title>{escape(hint)}</title></circle>"
        for place, (_, value, kind, hint) in enumerate(values)
    ]
    return _plot("".join(dots), title, f"{most:.3g} s", values[0][0], values[-1][0])


def _bar(kind: str, left: float, base: float, wide: float, tall: float) -> str:
    top = _HEIGHT - _FOOT - base - tall
    return f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'


def _level(share: float) -> float:
    return _HEAD + (1 - max(share, 0.0)) * (_HEIGHT - _FOOT - _HEAD)


def _plot(marks: str, title: str, most: str, first: str, last: str) -> str:
    floor = _HEIGHT - _FOOT
    lines = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}"/>' for y in (_HEAD, floor)
    )
    return (
        '<div class="scroll" tabindex="0">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{lines}{marks}'
        f'<text x="{_LEFT - 6}" y="{_HEAD + 4}" text-anchor="end">{escape(most)}</text>'
        f'<text x="{_LEFT - 6}" y="{floor}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{escape(first)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 6}" text-anchor="end">{escape(last)}</text></svg></div>'
    )
