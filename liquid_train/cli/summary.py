"""What a finished run says on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liquid_train.cli.checkpoint import RunCheckpoint


def summary(
    results: Mapping[str, float],
    checkpoint: RunCheckpoint,
    run_dir: Path,
    telemetry_run: Any,
    fast_dev_run: bool = False,
) -> str:
    """Return the lines: what was reached, where it is, how to look at it.

    Args:
        results: what the test of the best checkpoint measured, by name; empty when nothing was tested.
        checkpoint: the keeper of the checkpoints.
        run_dir: the run's directory.
        telemetry_run: `Telemetry.run`, or None without telemetry.
        fast_dev_run: whether this was a trial of a few batches, which keeps no checkpoints.
    """
    run_dir = short(run_dir)
    lines = [("best checkpoint", "none: fast_dev_run keeps none" if fast_dev_run else _best(checkpoint))]
    lines += [(name.replace("_", " "), f"{value:.4f}") for name, value in sorted(results.items())]
    lines.append(("run directory", str(run_dir)))
    if telemetry_run is not None:
        if telemetry_run.metrics_url:
            lines.append(("live page", str(telemetry_run.metrics_url).removesuffix("metrics")))
            lines.append(("metrics", str(telemetry_run.metrics_url)))
        lines.append(("events", f"tail -f {run_dir / 'events.jsonl'}"))
        lines.append(("traces", str(run_dir / "traces.jsonl")))
        lines.append(("afterwards", f"liquid-train view {run_dir}"))
    width = max(len(name) for name, _ in lines)
    return "".join(f"{name.ljust(width)}  {value}\n" for name, value in lines)


def _best(checkpoint: RunCheckpoint) -> str:
    if not checkpoint.best_model_path:
        return f"none: {checkpoint.monitor} was never logged; set --checkpoint.monitor, null for the newest"
    if checkpoint.best_model_score is None:
        return f"{short(Path(checkpoint.best_model_path))} (the newest)"
    return f"{short(Path(checkpoint.best_model_path))} ({checkpoint.monitor} {float(checkpoint.best_model_score):.4f})"


def short(path: Path) -> Path:
    """Return `path` from the working directory, if it lies in it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
