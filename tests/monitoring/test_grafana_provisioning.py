"""What Grafana is provisioned with: data sources that link to one another and are those the dashboards use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from stack import FILES, MONITORING, raw

FILE = MONITORING / FILES["datasources"]
SOURCES: dict[str, dict[str, Any]] = {one["uid"]: one for one in raw(FILES["datasources"])["datasources"]}
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
GRAFANA = raw("compose.yaml")["services"]["grafana"]


def test_links_between_data_sources_lead_somewhere() -> None:
    (exemplar,) = SOURCES["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert (exemplar["name"], SOURCES[exemplar["datasourceUid"]]["type"]) == ("trace_id", "jaeger")
    (derived,) = SOURCES["loki"]["jsonData"]["derivedFields"]
    assert (derived["matcherType"], derived["matcherRegex"]) == ("label", "trace_id")
    assert SOURCES[derived["datasourceUid"]]["type"] == "jaeger"
    logs = SOURCES["jaeger"]["jsonData"]["tracesToLogsV2"]
    assert SOURCES[logs["datasourceUid"]]["type"] == "loki"
    assert 'service_name="liquid-train"' in logs["query"]
    assert 'trace_id="$${__trace.traceId}"' in logs["query"]


def test_dollars_are_doubled() -> None:
    text = re.sub(r"#.*", "", FILE.read_text())
    assert re.findall(r"(?<!\$)\$(?:\$\$)*(?!\$)", text) == []
    assert "$${" in text


def test_one_source_is_the_default() -> None:
    assert [uid for uid, one in SOURCES.items() if one.get("isDefault")] == ["prometheus"]


def test_dashboards_are_read_from_where_they_are_mounted() -> None:
    (provider,) = raw(FILES["dashboards"])["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in GRAFANA["volumes"]
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in GRAFANA["volumes"]
    home = Path(GRAFANA["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert home.name in {path.name for path in DASHBOARDS}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_use_data_sources_that_exist(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    variables = [one for one in dashboard["templating"]["list"] if one["type"] == "datasource"]
    assert variables
    for variable in variables:
        assert SOURCES[variable["current"]["value"]]["type"] == variable["query"]
