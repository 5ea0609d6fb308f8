"""The Grafana dashboards, made out of the catalogue of signals: ``python -m monitoring.grafana.generate``."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.grafana.generate import health, inference, overview, training_run
from monitoring.grafana.generate.reference import markdown

_ROOT = Path(__file__).parents[3]
_BOARDS = {
    "training-overview": overview.board,
    "training-run": training_run.board,
    "inference-and-api": inference.board,
    "telemetry-health": health.board,
}


def files() -> dict[Path, str]:
    """Everything that is made: the JSON of each dashboard and the list of their panels."""
    made = {
        name: json.dumps(board().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, board in _BOARDS.items()
    }
    folder = _ROOT / "monitoring" / "grafana" / "dashboards"
    page = markdown({name: json.loads(text) for name, text in made.items()})
    return {folder / f"{name}.json": text for name, text in made.items()} | {
        _ROOT / "docs" / "panels.md": page
    }
