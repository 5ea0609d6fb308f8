"""Which runs may go, by rules that the user sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from liquid_train.housekeeping.folders import RunFolder
from liquid_train.housekeeping.live import why_live
from liquid_train.housekeeping.units import age, size


@dataclass(frozen=True)
class Rules:
    """What is kept.

    Args:
        older_than: Seconds since the last write, beyond which a run goes.
        keep: The newest so many are kept whatever the other rules say; alone, all others go.
        max_size: Bytes of all runs together; beyond them the oldest go.
    """

    older_than: float | None = None
    keep: int | None = None
    max_size: int | None = None

    @property
    def none(self) -> bool:
        """Whether nothing would go."""
        return self.older_than is None and self.keep is None and self.max_size is None


@dataclass(frozen=True)
class Decision:
    """Whether a run goes, why it does or does not, and the bytes that this frees."""

    run: RunFolder
    goes: bool
    why: str
    frees: int


def decide(
    runs: Sequence[RunFolder], rules: Rules, now: float, gain: Callable[[RunFolder], int]
) -> list[Decision]:
    """Decide about runs, which come the newest first; the decisions come likewise.

    Args:
        runs: All of a folder.
        rules: What is kept.
        now: Unix seconds.
        gain: Bytes that are freed when a run goes; one that frees nothing stays.
    """
    gains = {run.path: gain(run) for run in runs}
    protected = _protected(runs, rules, now)
    protected |= {
        path: "nothing but its kept checkpoints is left" for path, bytes_ in gains.items() if not bytes_
    }
    going = {
        run.path: why for run in runs if run.path not in protected and (why := _too_old(run, rules, now))
    }
    if rules.max_size is not None:
        total = sum(run.size - (gains[run.path] if run.path in going else 0) for run in runs)
        for run in reversed(runs):
            if total > rules.max_size and run.path not in protected and run.path not in going:
                going[run.path] = f"{size(total)} are more than {size(rules.max_size)}, the oldest go first"
                total -= gains[run.path]
    return [
        Decision(run, True, going[run.path], gains[run.path])
        if run.path in going
        else Decision(run, False, protected.get(run.path, "no rule is against it"), 0)
        for run in runs
    ]


def _protected(runs: Sequence[RunFolder], rules: Rules, now: float) -> dict[Path, str]:
    live = {run.path: why for run in runs if (why := why_live(run, now)) is not None}
    origins = {run.manifest.get("resumed_from"): run.run_id for run in runs if run.path in live}
    kept: dict[Path, str] = {}
    for place, run in enumerate(runs):
        if run.path in live:
            kept[run.path] = live[run.path]
        elif run.run_id in origins:
            kept[run.path] = f"the live run {origins[run.run_id]} goes on from it"
        elif rules.keep is not None and place < rules.keep:
            kept[run.path] = f"of the newest {rules.keep}"
    return kept


def _too_old(run: RunFolder, rules: Rules, now: float) -> str | None:
    seconds = now - run.touched
    if rules.older_than is not None:
        old = f"last written to {age(seconds)} ago, longer than {age(rules.older_than)}"
        return old if seconds > rules.older_than else None
    if rules.keep is not None and rules.max_size is None:
        return f"not of the newest {rules.keep}"
    return None
