"""The dashboards as they are shipped: their panels, and their queries with the variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "monitoring" / "grafana" / "dashboards"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))
}
EVERYTHING = dict.fromkeys(("job", "instance", "model", "slot", "run"), ".*")
WINDOWS = {"__rate_interval": "4s", "__range": "5m", "__interval": "1s"}


@dataclass(frozen=True)
class Asked:
    """A query of a panel."""

    dashboard: str
    panel: dict[str, Any]
    target: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.dashboard}/{self.panel['title']}/{self.target['refId']}"

    @property
    def expr(self) -> str:
        """As it is in the dashboard."""
        return str(self.target["expr"])

    def filled(self, **values: str) -> str:
        """With variables as Grafana fills them in when all of everything is chosen, but for the given ones."""
        return fill(self.expr, **values)


def fill(text: str, **values: str) -> str:
    """Replace the variables in PromQL."""
    known = {**EVERYTHING, **WINDOWS, **values}
    return re.sub(r"\$(\w+)", lambda found: known[found[1]], text)


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Without the headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(kind: str = "prometheus") -> Iterator[Asked]:
    """Every query of every panel for a kind of data source."""
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                if target["datasource"]["type"] == kind:
                    yield Asked(name, panel, target)


def annotations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every annotation and its dashboard."""
    for name, dashboard in DASHBOARDS.items():
        for annotation in dashboard["annotations"]["list"]:
            yield name, annotation


def variables(dashboard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The variables of a dashboard by name."""
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}
