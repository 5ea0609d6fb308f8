"""``python -m liquid_telemetry.exporter``: serve the runs of a spool."""

from __future__ import annotations

import sys

from liquid_telemetry.exporter.lifecycle import run
from liquid_telemetry.exporter.settings import parse

if __name__ == "__main__":
    sys.exit(run(parse()))
