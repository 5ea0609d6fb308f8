"""Training-loop observability for PyTorch Lightning: metrics, traces and logs as callbacks.

Names are imported on first use, so that the exporter process can import this package without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from liquid_telemetry.callbacks import OpenTelemetrySpans, PrometheusMetrics, StructlogEvents, Telemetry
    from liquid_telemetry.errors import NonFiniteLossError
    from liquid_telemetry.inference.helper import Inference

__all__ = [
    "Inference",
    "NonFiniteLossError",
    "OpenTelemetrySpans",
    "PrometheusMetrics",
    "StructlogEvents",
    "Telemetry",
    "__version__",
]

__version__ = "0.1.0"
_ELSEWHERE = {"Inference": "inference.helper", "NonFiniteLossError": "errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'liquid_telemetry' has no attribute {name!r}")
    module = _ELSEWHERE.get(name, "callbacks")
    return getattr(import_module(f"liquid_telemetry.{module}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
