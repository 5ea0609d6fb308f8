"""The exporter's options, from the command line, else from ``LIQUID_TELEMETRY_<NAME>``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from liquid_telemetry.spool import Sink, find_sinks, spool_dir


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """Options of one exporter; times in seconds."""

    spool: Path
    host: str = _option("127.0.0.1", "address to serve at")
    port: int = _option(9464, "port to serve at; 0 picks a free one")
    poll: float = _option(0.5, "how often the spool is looked at")
    hold: float = _option(60.0, "how long a new total waits for the old one to be scraped")
    leave: float = _option(300.0, "how long an ended run waits to be scraped twice")
    linger: float = _option(20.0, "how long SIGTERM waits for the scrape of an ended run")
    grace: float = _option(2.0, "how long a dead rank waits for what the other ranks say")
    stall: float = _option(60.0, "least silence of a run that can be a stall; some phases get a multiple")
    stale: float = _option(300.0, "age at which the metrics of a live run count as stale")
    recent: float = _option(300.0, "how long a telemetry error makes its component degraded")
    critical: float = _option(90.0, "use of memory or disk, in percent, above which health is critical")
    stay: bool = _option(False, "serve until SIGTERM, also without runs")
    models: int = _option(100, "how many models are told apart; the jobs of others are counted as 'other'")
    pushgateway: str = _option("", "URL of a Pushgateway to push to")
    textfile: str = _option("", "directory of node_exporter's textfile collector to write to")
    otlp_metrics: str = _option("", "OTLP receiver to send to; 'true' for that of OpenTelemetry's variables")
    push: float = _option(10.0, "how often sinks get the metrics when nothing has changed")
    sink_hold: float = _option(30.0, "how long a total stands in a sink before the next is shown there")

    def sinks(self) -> list[Sink]:
        """Return the sinks that every run of this exporter is sent to.

        Raises:
            ValueError: One cannot be used.
        """
        otlp = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
        return find_sinks(self.pushgateway, self.textfile, self.otlp_metrics, otlp)


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Read the options; an invalid one ends the process with a usage line."""
    parser = argparse.ArgumentParser(prog="python -m liquid_telemetry.exporter", description=__doc__)
    parser.add_argument("--spool", type=Path, help="directory shared with the runs (default: the user's own)")
    for option in fields(Settings)[1:]:
        text = f"{option.metadata['help']} (default: {option.default or 'off'})"
        flag = f"--{option.name.replace('_', '-')}"
        if isinstance(option.default, bool):
            parser.add_argument(flag, action="store_true", help=text)
            continue
        default = os.environ.get(f"LIQUID_TELEMETRY_{option.name.upper()}", option.default)
        parser.add_argument(flag, type=type(option.default), default=default, help=text)
    values = vars(parser.parse_args(arguments))
    values["spool"] = values["spool"] or spool_dir()
    return Settings(**values)
