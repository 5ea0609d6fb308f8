"""The files of the stack, as the programs that read them see them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml

MONITORING = Path(__file__).parents[1] / "monitoring"
SCHEMAS = Path(__file__).parent / "monitoring" / "schemas"
FILES = {
    "loki": "loki/loki.yaml",
    "collector": "otel-collector/collector.yaml",
    "jaeger": "jaeger/jaeger.yaml",
    "datasources": "grafana/provisioning/datasources/datasources.yaml",
    "dashboards": "grafana/provisioning/dashboards/dashboards.yaml",
}
_VARIABLE = re.compile(r"\$\{(?:env:)?(\w+):-([^}]*)\}")


def raw(name: str) -> Any:
    """A file below ``monitoring/``."""
    return yaml.safe_load((MONITORING / name).read_text())


def read(name: str, **variables: str) -> Any:
    """The same, with its environment variables replaced, by default with their defaults."""
    text = (MONITORING / name).read_text()
    return yaml.safe_load(_VARIABLE.sub(lambda found: variables.get(found[1], found[2]), text))


def complaints(schema: dict[str, Any], document: Any) -> list[str]:
    """What a JSON schema finds wrong."""
    found = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def schema(name: str) -> dict[str, Any]:
    """The schema of one of ``FILES``, or of ``compose``."""
    if name == "compose":
        made: dict[str, Any] = json.loads((SCHEMAS / "compose-spec.json").read_text())
    else:
        made = yaml.safe_load((SCHEMAS / "stack.yaml").read_text())["$defs"][name]
    jsonschema.Draft202012Validator.check_schema(made)
    return made


def listening() -> dict[str, list[str]]:
    """The addresses that each service of ``compose.yaml`` listens at, from its command, environment and file."""
    services = raw("compose.yaml")["services"]
    loki, jaeger = read(FILES["loki"])["server"], read(FILES["jaeger"])
    options = {
        name: [option.partition("=") for option in service["command"]]
        for name, service in services.items()
        if name in ("prometheus", "alertmanager")
    }
    found = {
        name: [value for option, _, value in given if option.endswith("listen-address") and value]
        for name, given in options.items()
    }
    found["loki"] = [
        f"{loki[f'{kind}_listen_address']}:{loki[f'{kind}_listen_port']}" for kind in ("http", "grpc")
    ]
    found["jaeger"] = _endpoints(jaeger["extensions"]) + _endpoints(jaeger["receivers"])
    collector = read(FILES["collector"])
    found["otel-collector"] = _endpoints(collector["extensions"]) + _endpoints(collector["receivers"])
    found["grafana"] = [f"{services['grafana']['environment']['GF_SERVER_HTTP_ADDR']}:3000"]
    return found


def _endpoints(document: Any) -> list[str]:
    if not isinstance(document, dict):
        return []
    own = [value for key, value in document.items() if key == "endpoint"]
    return own + [found for value in document.values() for found in _endpoints(value)]
