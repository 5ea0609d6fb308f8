"""The state and the totals of jobs where no exporter process tells them: as far as the process itself can know."""

from __future__ import annotations

from liquid_telemetry.metrics.store import Store
from liquid_telemetry.signals import FAILURE_REASONS, INTERRUPTION_REASONS, JOB_STATES


class EmbeddedJob:
    """One job in the user's registry; a process that is killed takes its last word with it.

    Args:
        store: Of the run.
        totals: Of the model, over all runs of this process.
    """

    def __init__(self, store: Store, totals: Store) -> None:
        self._store = store
        self._totals = totals
        self._over = False

    def open(self) -> None:
        """The run is set up, goes on after a Tuner, or is tested after its end."""
        if not self._over:
            self._show("starting")

    def start(self) -> None:
        """Training begins."""
        self._totals.add("training_jobs_started_total", 1)
        self._show("running")

    def end(self, outcome: str, reason: str | None) -> None:
        """The run is over: completed, failed or interrupted."""
        self._totals.add(f"training_jobs_{outcome}_total", 1, *([reason] if reason else []))
        self._over = True
        self._show(outcome)

    def close(self) -> None:
        """The Trainer function returns; a run that never got to train was a Tuner's."""
        if not self._over:
            self._show("completed")

    def _show(self, state: str) -> None:
        self._store.set("training_active", state in ("starting", "running"))
        for name in JOB_STATES:
            self._store.set("training_job_state", name == state, name)


def totals_of(model_name: str) -> Store:
    """The totals of a model's jobs, all at zero."""
    totals = Store(model_name)
    totals.add("training_jobs_started_total", 0)
    totals.add("training_jobs_completed_total", 0)
    for reason in FAILURE_REASONS:
        totals.add("training_jobs_failed_total", 0, reason)
    for reason in INTERRUPTION_REASONS:
        totals.add("training_jobs_interrupted_total", 0, reason)
    return totals
