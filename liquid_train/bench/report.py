"""What a benchmark found: for people, for programs, for the history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from liquid_train.bench.baseline import Measured
from liquid_train.bench.measure import REFERENCE, Case
from liquid_train.bench.statistics import Interval, ratio_of_medians, verdict

NEW = "new"
"""Verdict on a case that the baseline does not have."""


@dataclass(frozen=True)
class Finding:
    """One case: its times, and how they compare with the baseline's.

    Args:
        case: Its shape.
        median: Seconds.
        low: 5th percentile of the calls, seconds.
        high: 95th percentile.
        calls: How many were timed.
        baseline: Median seconds of the baseline, None where it has none.
        times: Ratio to the baseline.
        relative: The same in units of the reference work.
        verdict: `slower`, `faster`, `same`, `unclear` or `new`.
    """

    case: Case
    median: float
    low: float
    high: float
    calls: int
    baseline: float | None = None
    times: Interval | None = None
    relative: Interval | None = None
    verdict: str = NEW

    def to_json(self) -> dict[str, Any]:
        """As an object of JSON."""
        return {
            "case": self.case.name,
            "batch": self.case.batch,
            "length": self.case.length,
            "median_seconds": self.median,
            "p05_seconds": self.low,
            "p95_seconds": self.high,
            "calls": self.calls,
            "baseline_seconds": self.baseline,
            "ratio": vars(self.times) if self.times else None,
            "relative_ratio": vars(self.relative) if self.relative else None,
            "verdict": self.verdict,
        }


def judge(
    cases: Sequence[Case],
    seconds: Mapping[str, Sequence[Sequence[float]]],
    now: Measured,
    baseline: Measured | None,
    allowed: float,
    confidence: float,
) -> list[Finding]:
    """Compare every case with the baseline.

    Args:
        cases: What was measured.
        seconds: Of every call, by case and block.
        now: The same as it is kept.
        baseline: What to compare with, if there is one.
        allowed: Ratio that is no regression yet.
        confidence: That none of the intervals misses the truth; each one's is higher accordingly (Bonferroni).
    """
    shared = [case for case in cases if baseline is not None and case.name in baseline.blocks]
    each = 1 - (1 - confidence) / max(2 * len(shared), 1)
    findings = []
    for number, case in enumerate(cases):
        calls = np.concatenate([np.asarray(block) for block in seconds[case.name]])
        low, high = np.percentile(calls, [5, 95])
        plain = (case, now.median(case.name), float(low), float(high), len(calls))
        if baseline is None or case not in shared:
            findings.append(Finding(*plain))
            continue
        times = ratio_of_medians(now.blocks[case.name], baseline.blocks[case.name], each, 2 * number)
        relative = ratio_of_medians(
            now.relative(case.name), baseline.relative(case.name), each, 2 * number + 1
        )
        before = baseline.median(case.name)
        findings.append(Finding(*plain, before, times, relative, verdict(times, relative, allowed)))
    return findings


def table(findings: Sequence[Finding], now: Measured, baseline: Measured | None) -> str:
    """Return lines for a terminal."""
    machine = now.machine
    return "\n".join(
        [
            f"{now.model_key}, weights {now.model_version}",
            f"{machine['cpu']}, cores: {machine['cores']}, threads: {machine['threads']}, torch {machine['torch']}",
            "",
            f"{'batch x length':>14} {'median':>10} {'5 %':>10} {'95 %':>10} {'baseline':>10}  ratio (interval)",
            *(_row(finding) for finding in findings),
            *_remarks(now, baseline),
            "",
        ]
    )


def _row(finding: Finding) -> str:
    times = (finding.median, finding.low, finding.high)
    row = f"{finding.case.name:>14} " + " ".join(f"{1e3 * value:>7.3f} ms" for value in times)
    if finding.baseline is None or finding.times is None:
        return f"{row} {'none':>10}"
    ratio = finding.times
    return (
        f"{row} {1e3 * finding.baseline:>7.3f} ms  {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) "
        f"{finding.verdict}"
    )


def _remarks(now: Measured, baseline: Measured | None) -> Iterator[str]:
    for what, one in (("", now), (" at the baseline", baseline)):
        load, cores = (one.machine.get("load"), one.machine.get("cores")) if one else (None, None)
        if load and cores and load > cores:
            yield f"the machine was busy{what} (load {load:g} on {cores} cores): times may be off by tens of per cent"
    if baseline is None:
        return
    changed = [name for name in ("torch", "python") if baseline.machine.get(name) != now.machine[name]]
    for name in changed:
        yield f"{name} was {baseline.machine.get(name)} at the baseline, is {now.machine[name]}"
    speed = now.median(REFERENCE) / baseline.median(REFERENCE)
    if not 0.9 < speed < 1.1:
        yield f"the machine itself took {speed:.2f} times as long for the reference work as at the baseline"
