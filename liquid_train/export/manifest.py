"""What an artefact says of itself: `manifest.json` in its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from liquid_train import __version__
from liquid_train.export.compare import ABSOLUTE, RELATIVE, Case
from liquid_train.export.programs import Port, Program
from liquid_train.tasks.load import Trained

MANIFEST = "manifest.json"
FORMAT = 1


def describe(
    trained: Trained, programs: Sequence[Program], files: Mapping[str, Path], cases: Sequence[Case]
) -> dict[str, Any]:
    """Return the manifest, but for what only the command knows.

    Args:
        trained: What was exported.
        programs: As what.
        files: The file of each program, by the program's name.
        cases: What was compared.
    """
    task = trained.task
    return {
        "format": FORMAT,
        "model": trained.name,
        "model_version": trained.version,
        "trained_by": trained.run_id,
        "created": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "versions": {"liquid-train": __version__},
        "checkpoint": {
            "path": str(trained.path.absolute()),
            "sha256": trained.sha256,
            "epoch": trained.epoch,
            "global_step": trained.global_step,
        },
        "metrics": dict(metrics_of(trained)),
        "hyperparameters": dict(task.hparams),
        "parameters": sum(parameter.numel() for parameter in task.parameters()),
        "files": {program.file: _file(program, files[program.file]) for program in programs},
        "comparison": {
            "with": "the checkpoint in PyTorch, on the CPU, in float32",
            "tolerance": f"{ABSOLUTE:g} + {RELATIVE:g} x the number",
            "max_difference": max(case.difference for case in cases),
            "max_excess": max(case.excess for case in cases),
            "numbers": sum(case.outputs for case in cases),
            "cases": [case.to_json() for case in cases],
        },
    }


def _file(program: Program, path: Path) -> dict[str, Any]:
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "inputs": _ports(program.inputs),
        "outputs": _ports(program.outputs),
    }


def _ports(ports: Iterable[Port]) -> list[dict[str, Any]]:
    return [asdict(port) | {"shape": list(port.shape)} for port in ports]


def metrics_of(trained: Trained) -> Mapping[str, float]:
    """Return the metrics of the checkpoint's epoch from the log of its run, and what the checkpoint says itself."""
    log = trained.path.absolute().parent.parent / "events.jsonl"
    found: dict[str, Any] = {}
    try:
        lines = log.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        event = _parsed(line)
        mine = event.get("run_id") == trained.run_id and event.get("global_step") == trained.global_step
        if (
            mine
            and event.get("event") == "training_epoch_completed"
            and isinstance(event.get("metrics"), dict)
        ):
            found = {**event["metrics"], **{name: event.get(name) for name in ("val_loss", "val_accuracy")}}
    return {**{name: value for name, value in found.items() if isinstance(value, float)}, **trained.scores}


def _parsed(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}
