"""The machine in words, without anything that names it, and where it keeps its baselines."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_SHAPING = ("cell", "units", "wiring", "cell_options", "readout", "input_size", "num_classes")
"""Hyperparameters that decide what is computed; the others only decide how it is learned."""


def describe_machine() -> dict[str, Any]:
    """Return what decides how fast a model is here; `load` is how many processes wanted a core in the last minute."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def machine_key(machine: Mapping[str, Any]) -> str:
    """Return the same name for as long as times can be compared; versions of software may change under it."""
    return _short({name: machine[name] for name in ("cpu", "cores", "threads", "vector", "system")})


def model_key(name: str, hyperparameters: Mapping[str, Any]) -> str:
    """Return the same name for every checkpoint of one architecture."""
    return f"{name}-{_short({key: hyperparameters.get(key) for key in _SHAPING})}"


def state_dir(environment: Mapping[str, str]) -> Path:
    """Return the folder for what a program keeps between its runs, by the XDG base directory specification."""
    given = environment.get("XDG_STATE_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return base / "liquid-train" / "bench"


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _cpu() -> str:
    if sys.platform == "linux":
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
        except OSError:
            lines = []
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return platform.processor() or platform.machine()
