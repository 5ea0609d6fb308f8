"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OK, WARNING, PROBLEM, ABSENT = "ok", "warning", "problem", "not there"
STATUSES = (OK, WARNING, PROBLEM, ABSENT)


@dataclass(frozen=True)
class Finding:
    """One answer of one check.

    Args:
        area: What was looked at: ``machine``, ``exporter``, ``prometheus``, …
        check: Which question, in a word or two.
        status: ``ok``, ``warning``, ``problem`` or ``not there`` (nothing runs there, and nobody said it does).
        seen: What was found, in one line.
        todo: What to do, with the command where there is one; empty when nothing is to be done.
    """

    area: str
    check: str
    status: str
    seen: str
    todo: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        return asdict(self)


class Area:
    """Makes the findings of one area.

    Args:
        name: Of the area.
        named: Whether the user said that it is there: what is amiss with it is then a problem.
    """

    def __init__(self, name: str, *, named: bool = True) -> None:
        self.name, self.named = name, named

    def ok(self, check: str, seen: str) -> Finding:
        """Nothing to do."""
        return Finding(self.name, check, OK, seen)

    def warning(self, check: str, seen: str, todo: str) -> Finding:
        """Something works less well than it could, or may stop working."""
        return Finding(self.name, check, WARNING, seen, todo)

    def problem(self, check: str, seen: str, todo: str) -> Finding:
        """Something does not work."""
        return Finding(self.name, check, PROBLEM, seen, todo)

    def absent(self, check: str, seen: str, todo: str) -> Finding:
        """Nothing is there: a problem where the user named it."""
        return Finding(self.name, check, PROBLEM if self.named else ABSENT, seen, todo)

    def foreign(self, check: str, seen: str, todo: str) -> Finding:
        """Something else is there: a problem where the user named it, else a warning."""
        return Finding(self.name, check, PROBLEM if self.named else WARNING, seen, todo)
