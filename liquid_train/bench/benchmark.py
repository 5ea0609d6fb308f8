"""One benchmark: measured, compared with its baseline, kept."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from liquid_train.bench.baseline import Measured, append_history, check_comparable, read_baseline
from liquid_train.bench.machine import describe_machine, machine_key, model_key, state_dir
from liquid_train.bench.measure import REFERENCE, Case, inference, measure, reference
from liquid_train.bench.report import Finding, judge
from liquid_train.errors import InputError
from liquid_train.tasks.load import Trained


@dataclass(frozen=True)
class Plan:
    """What to measure and how to judge it.

    Args:
        cases: Shapes of the inputs.
        blocks: Blocks of calls for each.
        warmup: Calls before them.
        seed: Of inputs and order.
        allowed: Ratio that is no regression yet.
        confidence: That no interval misses the truth.
        baseline: The file; by default one for this machine and model.
        update: Whether what is measured becomes the baseline.
    """

    cases: Sequence[Case]
    blocks: int
    warmup: int
    seed: int
    allowed: float
    confidence: float
    baseline: Path | None
    update: bool


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Args:
        now: What is kept of it.
        baseline: What it was compared with.
        path: File of the baseline.
        updated: Whether that file is new.
        findings: For each case.
        seconds: Of every call, by case and block.
    """

    now: Measured
    baseline: Measured | None
    path: Path
    updated: bool
    findings: Sequence[Finding]
    seconds: Mapping[str, Sequence[Sequence[float]]]

    @property
    def slower(self) -> list[Finding]:
        """The cases that are slower than allowed."""
        return [finding for finding in self.findings if finding.verdict == "slower"]

    @property
    def history(self) -> Path:
        """The file with a line for each benchmark that used this baseline."""
        return self.path.with_suffix(".history.jsonl")


def benchmark(trained: Trained, plan: Plan) -> Outcome:
    """Measure, compare with the baseline, keep both.

    Raises:
        InputError: the baseline does not fit, or a file cannot be read or written.
    """
    calls = {case.name: inference(trained.task, case, plan.seed) for case in plan.cases}
    machine = describe_machine()
    keys = machine_key(machine), model_key(trained.name, trained.task.hparams)
    path = plan.baseline or state_dir(os.environ) / f"{keys[1]}-{keys[0]}.json"
    known = _known(path, plan)
    seconds = measure({**calls, REFERENCE: reference}, plan.blocks, plan.warmup, plan.seed)
    blocks = {name: [median(block) for block in found] for name, found in seconds.items()}
    stamp = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    now = Measured(*keys, machine, trained.version, stamp, blocks)
    if known is not None:
        try:
            check_comparable(known, now, path)
        except InputError:
            if not plan.update:
                raise
            known = None
    findings = judge(plan.cases, seconds, now, known, plan.allowed, plan.confidence)
    outcome = Outcome(now, known, path, plan.update or known is None, findings, seconds)
    if outcome.updated:
        now.write(path)
    append_history(outcome.history, _line(outcome))
    return outcome


def _known(path: Path, plan: Plan) -> Measured | None:
    """The baseline, if there is one; a file that the user named has to be there, unless it is to be written."""
    try:
        return read_baseline(path)
    except InputError:
        if plan.update or (plan.baseline is None and not path.exists()):
            return None
        raise


def _line(outcome: Outcome) -> dict[str, Any]:
    now = outcome.now
    return {
        "time": now.time,
        "model_version": now.model_version,
        "torch": now.machine["torch"],
        "reference_seconds": now.median(REFERENCE),
        "cases": {finding.case.name: finding.to_json() for finding in outcome.findings},
    }
