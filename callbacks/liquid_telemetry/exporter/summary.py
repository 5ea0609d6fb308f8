"""A run in a few words, for the health endpoint and the page."""

from __future__ import annotations

from dataclasses import dataclass

from liquid_telemetry.exporter.runs import Run


@dataclass(frozen=True)
class Summary:
    """What a person wants to know of a run; None where the run has not said.

    Args:
        run_id: Identifier.
        model: Name of the model, with the slot of a concurrent run.
        state: A job state, or the stage of a run that is no job.
        reason: Of the end.
        end: The end, or a stall, in a few words.
        epoch: Current epoch, from zero.
        progress: Share of the planned training done.
        loss: Latest training loss.
        accuracy: Latest validation accuracy, else that of training or test.
        seen: Unix seconds of the last progress, else of the start.
        curve: Points of (global step, loss).
    """

    run_id: str
    model: str
    state: str
    reason: str
    end: str
    epoch: float | None
    progress: float | None
    loss: float | None
    accuracy: float | None
    seen: float
    curve: tuple[tuple[float, float], ...]


def summarise(run: Run) -> Summary:
    """Describe a run by its lowest rank."""
    snapshot = run.lead.snapshot
    accuracies = {sample.labels.get("dataset"): sample.value for sample in snapshot.samples("model_accuracy")}
    known = (accuracies[dataset] for dataset in ("val", "train", "test") if dataset in accuracies)
    return Summary(
        run_id=run.run_id,
        model=f"{run.model} ({run.slot})" if run.slot else run.model,
        state=run.state if run.job else _activity(run),
        reason=run.outcome.reason if run.outcome else "",
        end=run.outcome.text if run.outcome else str(run.stall or ""),
        epoch=snapshot.value("training_epoch"),
        progress=snapshot.value("training_progress_ratio"),
        loss=snapshot.value("training_loss"),
        accuracy=next(known, None),
        seen=snapshot.value("training_last_progress_timestamp_seconds") or run.record.started,
        curve=tuple(run.curve.points),
    )


def _activity(run: Run) -> str:
    return (run.record.stage or "running") if run.live else "ended"
