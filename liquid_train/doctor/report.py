"""The findings as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from liquid_train.doctor.finding import ABSENT, OK, PROBLEM, WARNING, Finding

_WIDTH = max(map(len, (OK, WARNING, PROBLEM, ABSENT)))


def text(findings: Sequence[Finding]) -> str:
    """Return one line a finding, by area, with what to do below it, and a line that counts."""
    return "\n".join(_lines(findings)) + "\n"


def as_json(findings: Sequence[Finding]) -> str:
    """Return one JSON object: the counts and the findings."""
    counts = {"problems": count(findings, PROBLEM), "warnings": count(findings, WARNING)}
    return json.dumps({**counts, "findings": [one.as_dict() for one in findings]}, indent=2) + "\n"


def count(findings: Sequence[Finding], status: str) -> int:
    """Return how many findings have a status."""
    return sum(one.status == status for one in findings)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    area = None
    for one in findings:
        if one.area != area:
            area = one.area
            yield area
        yield f"  {one.status:{_WIDTH}}  {one.check}: {one.seen}"
        if one.todo and one.status != OK:
            yield f"  {'':{_WIDTH}}  → {one.todo}"
    problems, warnings = count(findings, PROBLEM), count(findings, WARNING)
    yield f"{_number(problems, 'problem')}, {_number(warnings, 'warning')}"


def _number(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
