"""NVIDIA GPUs of the host, where ``liquid-train[gpu]`` and a driver are installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Readings = Mapping[tuple[str, str], float]
"""Values by metric (its name without the common prefix) and device (its index, as ``nvidia-smi`` numbers them)."""

_READERS: dict[str, Callable[[Any, Any], float]] = {
    "gpu_utilization_percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "gpu_temperature_celsius": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(
        gpu, nvml.NVML_TEMPERATURE_GPU
    ),
    "gpu_power_watts": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
}


class Gpus:
    """Reads all GPUs through NVML, which is opened at the first look and never tried again where there is none."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._opened = False

    def look(self) -> Readings:
        """Return what the GPUs tell; a value that one does not have is left out."""
        if not self._opened:
            self._opened, self._nvml = True, _open()
        nvml = self._nvml
        if nvml is None:
            return {}
        found: dict[tuple[str, str], float] = {}
        for index in range(_count(nvml)):
            for name, read in _READERS.items():
                try:
                    found[name, str(index)] = float(read(nvml, nvml.nvmlDeviceGetHandleByIndex(index)))
                except nvml.NVMLError:
                    continue
        return found


def _open() -> Any:
    """Return NVML, or None without the package, a driver or a GPU."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _count(nvml: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return 0
