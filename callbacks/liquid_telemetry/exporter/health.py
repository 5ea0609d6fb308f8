"""The health of runs and of the host, as ``/health`` tells it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from liquid_telemetry.exporter.components import COMPONENTS
from liquid_telemetry.exporter.host import HostSample
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.settings import Settings

Components = dict[str, dict[str, Any]]
HEALTHY, DEGRADED, CRITICAL = "healthy", "degraded", "critical"
_GIGABYTE = 1e9


def report(
    runs: Iterable[Run], host: HostSample | None, settings: Settings, now: float, uptime: float
) -> dict[str, Any]:
    """Return the report of the worst of the runs, which may be none.

    Args:
        runs: Runs to choose from.
        host: Latest sample of the host.
        settings: Thresholds.
        now: Monotonic seconds.
        uptime: Seconds that the exporter has been up.
    """
    candidates = [(run, _components(run, settings, now)) for run in runs]
    worst, components = max(candidates, key=lambda pair: len(_complaints(pair[1])), default=(None, _no_run()))
    shortages = _shortages(host, settings.critical)
    complaints = _complaints(components)
    answer: dict[str, Any] = {
        "status": CRITICAL if shortages else DEGRADED if complaints else HEALTHY,
        "timestamp": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
        "uptime": round(uptime, 3),
        "version": _version(),
        "run": worst.run_id if worst else None,
        "resources": resources(host),
        "components": components,
    }
    if shortages or complaints:
        answer["reason"] = "; ".join(shortages + complaints)
    return answer


def _components(run: Run, settings: Settings, now: float) -> Components:
    since = now - settings.recent
    components: Components = {"training": _training(run)}
    for name in COMPONENTS:
        failing = run.errors.recent(name, since)
        components[name] = _component("errors in the last minutes" if failing else "")
    age = now - (run.lead.snapshot.changed or now)
    if run.live and age > settings.stale:
        components["metrics"] = _component(f"no new values for {age:.0f} s")
    return components


def _training(run: Run) -> dict[str, Any]:
    if run.state in ("starting", "running", "completed"):
        return {"status": HEALTHY, "state": run.state}
    reason = str(run.outcome or run.stall or run.state)
    return {"status": DEGRADED, "state": run.state, "reason": reason}


def _no_run() -> Components:
    return {"training": {"status": HEALTHY, "state": "idle"}, **{name: _component("") for name in COMPONENTS}}


def _component(complaint: str) -> dict[str, Any]:
    return {"status": DEGRADED, "reason": complaint} if complaint else {"status": HEALTHY}


def _complaints(components: Components) -> list[str]:
    return [f"{name}: {part['reason']}" for name, part in components.items() if part["status"] != HEALTHY]


def _shortages(host: HostSample | None, limit: float) -> list[str]:
    if host is None:
        return []
    uses = {"memory": host.memory_percent, "disk": host.disk_percent}
    return [f"{name} is {use:.1f} % used" for name, use in uses.items() if use > limit]


def resources(host: HostSample | None) -> dict[str, float]:
    if host is None:
        return {}
    return {
        "memory_usage_percent": host.memory_percent,
        "memory_available_gb": round(host.memory_available / _GIGABYTE, 3),
        "disk_usage_percent": host.disk_percent,
        "disk_free_gb": round(host.disk_free / _GIGABYTE, 3),
        "cpu_usage_percent": host.cpu_percent,
    }


@cache
def _version() -> str:
    try:
        return version("liquid-train")
    except PackageNotFoundError:
        return "unknown"
