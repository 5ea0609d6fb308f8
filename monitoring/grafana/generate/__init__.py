"""The Grafana dashboards, made out of the catalogue of signals: ``python -m monitoring.grafana.generate``."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.grafana.generate import health, inference, overview, training_run

DASHBOARDS = Path(__file__).parents[1] / "dashboards"

_BOARDS = {
    "training-overview": overview.board,
    "training-run": training_run.board,
    "inference-and-api": inference.board,
    "telemetry-health": health.board,
}


def dashboards() -> dict[str, str]:
    """The JSON of every dashboard, by file name."""
    return {
        f"{name}.json": json.dumps(board().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, board in _BOARDS.items()
    }
