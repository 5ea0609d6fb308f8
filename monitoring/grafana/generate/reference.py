"""The list of the panels as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_METRIC = re.compile(r"\b(?:liquid_nn[_:][\w:]+|prometheus_\w+|alertmanager_\w+|scrape_\w+|up\b|ALERTS)")


def markdown(dashboards: Mapping[str, Mapping[str, Any]]) -> str:
    """A page that names each panel of each dashboard, what it shows and the series it reads."""
    lines = ["# Every panel", ""]
    lines += ["Made with the [dashboards](grafana.md) by `make dashboards`."]
    for dashboard in dashboards.values():
        lines += ["", f"## {dashboard['title']}", "", dashboard["description"]]
        lines += _rows(dashboard["panels"])
    return "\n".join(lines) + "\n"


def _rows(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        if panel["type"] == "row":
            yield from ("", f"**{panel['title']}**", "", "| panel | what it shows | reads |", "|---|---|---|")
        else:
            yield f"| {panel['title']} | {panel['description']} | {', '.join(_reads(panel))} |"


def _reads(panel: dict[str, Any]) -> Iterator[str]:
    if panel["type"] == "logs":
        yield "the event log"
        return
    found = (name for target in panel["targets"] for name in _METRIC.findall(target["expr"]))
    names = dict.fromkeys(re.sub(r"_(bucket|sum|count)$", "", name) for name in found)
    if len(names) > 1:
        names.pop("liquid_nn_training_info", None)  # names the run
    yield from (f"`{name}`" for name in names) if names else ("every metric",)
