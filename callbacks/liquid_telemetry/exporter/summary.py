"""A run of the spool in a few words, for the page."""

from __future__ import annotations

from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.live.summary import Summary


def summarise(run: Run) -> Summary:
    """Describe a run by its lowest rank."""
    snapshot, record = run.lead.snapshot, run.record
    accuracies = {sample.labels.get("dataset"): sample.value for sample in snapshot.samples("model_accuracy")}
    known = (accuracies[dataset] for dataset in ("val", "train", "test") if dataset in accuracies)
    return Summary(
        run_id=run.run_id,
        model=f"{run.model} ({run.slot})" if run.slot else run.model,
        state=run.state if run.job else _activity(run),
        live=run.live,
        reason=run.outcome.reason if run.outcome else "",
        end=run.outcome.text if run.outcome else str(run.stall or ""),
        started=record.started,
        seen=snapshot.value("training_last_progress_timestamp_seconds") or record.started,
        epoch=snapshot.value("training_epoch"),
        step=snapshot.value("training_global_step"),
        progress=snapshot.value("training_progress_ratio"),
        eta=snapshot.value("training_eta_seconds") if run.live else None,
        loss=snapshot.value("training_loss"),
        val_loss=snapshot.value("validation_loss"),
        accuracy=next(known, None),
        ranks=len(run.ranks),
        trace_id=record.trace_id,
        trace_url=record.trace_url,
        folder=record.run_dir,
    )


def _activity(run: Run) -> str:
    return (run.record.stage or "running") if run.live else "ended"
