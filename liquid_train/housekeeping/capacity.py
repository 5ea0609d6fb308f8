"""How much runs write, and how much Prometheus stores of them."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from liquid_telemetry.live.log import seconds
from liquid_telemetry.spool import exporter_address
from liquid_train.housekeeping.folders import RunFolder
from liquid_train.housekeeping.live import DAY

_FIRST_LINE = 100_000
_ANSWER_SECONDS, _TELLING = 10.0, 60.0


@dataclass(frozen=True)
class Written:
    """What a run has written.

    Args:
        run: The run.
        seconds: From its first event to the last write.
        grows: Bytes a day of its logs, traces and history at that rate; None of a run shorter than a minute.
    """

    run: RunFolder
    seconds: float | None
    grows: float | None


@dataclass(frozen=True)
class Series:
    """What an exporter serves.

    Args:
        url: Where it was asked.
        by_model: Series of each model; those without ``model_name`` under the empty name.
    """

    url: str
    by_model: dict[str, int]

    @property
    def total(self) -> int:
        """Series of one scrape."""
        return sum(self.by_model.values())


def written(run: RunFolder) -> Written:
    """Measure a run."""
    began = _began(run.path)
    lasted = run.touched - began if began is not None else None
    if lasted is None or lasted < _TELLING:
        return Written(run, lasted, None)
    text = sum(run.sizes[kind] for kind in ("events", "traces", "history"))
    return Written(run, lasted, text / lasted * DAY)


def written_a_day(runs: Sequence[Written], now: float) -> float | None:
    """Bytes a day that all runs together have grown by, from the start of the first until now."""
    began = [run.run.touched - run.seconds for run in runs if run.seconds is not None]
    if not began or now - min(began) < 1:
        return None
    return sum(run.run.size for run in runs) / max(now - min(began), DAY) * DAY


def served(spools: Iterable[Path]) -> list[Series]:
    """Ask the living exporters of these spools what they serve; one that does not answer is left out."""
    found = []
    for spool in dict.fromkeys(spools):
        try:
            address = exporter_address(spool)
            if address is None:
                continue
            url = f"{address.url}/metrics"
            with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
                text = answer.read().decode()
        except OSError:
            continue
        found.append(Series(url, count_series(text)))
    return found


def count_series(text: str) -> dict[str, int]:
    """Count the samples of Prometheus text by model."""
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        counts.update(sample.labels.get("model_name", "") for sample in family.samples)
    return dict(counts)


def _began(folder: Path) -> float | None:
    """Time of the first event, of the oldest part that is kept."""
    parts = [path for path in folder.glob("events*.jsonl") if path.is_file()]
    times = (_first_time(path) for path in parts)
    return min((time for time in times if time is not None), default=None)


def _first_time(path: Path) -> float | None:
    try:
        with path.open("rb") as file:
            fields = json.loads(file.readline(_FIRST_LINE))
    except (OSError, ValueError, RecursionError):
        return None
    return seconds(fields.get("timestamp")) if isinstance(fields, dict) else None
