"""Who sends the spans: OpenTelemetry resource attributes."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from urllib.parse import unquote

from liquid_telemetry import __version__
from liquid_telemetry.observe.records import RunInfo
from liquid_telemetry.tracing.otlp_json import Value


def resource_of(run: RunInfo, environment: Mapping[str, str]) -> dict[str, Value]:
    """Attributes of this process; ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME`` have the last word."""
    attributes: dict[str, Value] = {
        "service.name": "liquid-train",
        "service.version": __version__,
        "service.instance.id": f"{run.run_id}.{run.rank}",
        "host.name": socket.gethostname(),
        "os.type": platform.system().lower(),
        "process.pid": os.getpid(),
        "process.runtime.name": platform.python_implementation().lower(),
        "process.runtime.version": platform.python_version(),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "liquid_telemetry",
        "telemetry.sdk.version": __version__,
        "liquid_train.run.id": run.run_id,
        "liquid_train.model.name": run.model_name,
        "liquid_train.rank": run.rank,
        "liquid_train.world_size": run.world_size,
    }
    for item in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, separator, value = item.partition("=")
        if separator and key.strip():
            attributes[unquote(key.strip())] = unquote(value.strip())
    if name := environment.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = name
    return attributes
