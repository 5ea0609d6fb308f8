"""The switch that turns all telemetry of a process off."""

from __future__ import annotations

import os

SWITCH = "LIQUID_TELEMETRY_ENABLED"


def is_switched_off() -> bool:
    """Whether the environment says so."""
    return os.environ.get(SWITCH, "").lower() in ("0", "false", "off", "no")
