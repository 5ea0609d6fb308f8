"""Spans and their attributes."""

from __future__ import annotations

from dataclasses import dataclass

TRACER = "liquid_telemetry"
NAMESPACE = "liquid_train."


@dataclass(frozen=True)
class Span:
    """One kind of span: its low-cardinality name, its parent's name, what it covers and its attributes."""

    name: str
    parent: str | None
    help: str
    attributes: tuple[str, ...] = ()


ATTRIBUTES: dict[str, str] = {
    "run.id": "Identifier of the run, also the name of its directory.",
    "model.name": "Class name of the LightningModule, or the name the user gave.",
    "model.parameters": "Number of parameters.",
    "resumed_from": "run.id of the run whose checkpoint this run continues.",
    "stage": "train, validation, test or predict.",
    "epoch.index": "Epoch, from zero.",
    "batch.index": "Batch in its epoch, from zero.",
    "batch.samples": "Samples in the batch.",
    "batch.skipped": "True when the batch had no loss: the step returned None or was cut short.",
    "global_step": "Optimizer steps taken when the span ended.",
    "loss": "Training loss (mean over the epoch on an epoch span), unscaled by accumulation.",
    "accuracy": "Accuracy of the stage.",
    "learning_rate": "Learning rate of the first parameter group.",
    "batches.total": "Batches of the epoch.",
    "batches.recorded": "Batches of the epoch that have a span.",
    "batches.kept": "Why: all, or those spread evenly over the budget, and slow, skipped and non-finite ones.",
    "samples.total": "Samples of the epoch.",
    "data_wait.duration": "Seconds spent waiting for data.",
    "transfer.duration": "Seconds spent handing batches to the device, host time.",
    "forward.duration": "Seconds in the forward pass, host time.",
    "backward.duration": "Seconds in the backward pass, host time.",
    "optimizer.duration": "Seconds in the optimizer step, host time.",
    "validation.duration": "Seconds in validation.",
    "checkpoint.duration": "Seconds that checkpoints blocked training.",
    "other.duration": "Seconds in none of the phases above.",
    "checkpoint.path": "File or folder that was written.",
    "outcome": "completed, failed or interrupted.",
    "reason": "Why the run failed or was interrupted.",
    "model.type": "Class of the module, or name of the function, that answers.",
    "device": "Where the model runs.",
    "input.shape": "Shape of the input, as text.",
    "output.shape": "Shape of the output, as text.",
    "wait.duration": "Seconds that a served request waited for its batch.",
}

_PHASES = tuple(
    f"{phase}.duration"
    for phase in (
        "data_wait",
        "transfer",
        "forward",
        "backward",
        "optimizer",
        "validation",
        "checkpoint",
        "other",
    )
)
_BATCH = ("run.id", "stage", "epoch.index", "batch.index", "batch.samples", "batch.skipped", "global_step")
_EPOCH = (
    "run.id",
    "stage",
    "epoch.index",
    "global_step",
    "loss",
    "accuracy",
    "learning_rate",
    "batches.total",
    "batches.recorded",
    "batches.kept",
    "samples.total",
)

_INFERENCE = "liquid_nn_inference"

_ALL = (
    Span(
        "fit started",
        None,
        "Zero length, exported at once: the root of the run's trace.",
        ("run.id", "model.name", "model.parameters", "resumed_from"),
    ),
    Span(
        "train epoch",
        "fit started",
        "An epoch, its validation included; with outcome and reason where the exporter had to end it.",
        (*_EPOCH, *_PHASES, "outcome", "reason"),
    ),
    Span("train batch", "train epoch", "A batch, start hook to end hook.", (*_BATCH, "loss", *_PHASES[:5])),
    Span("validation epoch", "train epoch", "One pass over the validation data.", _EPOCH),
    Span("validation batch", "validation epoch", "One validation batch.", _BATCH),
    Span("test epoch", "fit started", "One pass over the test data.", _EPOCH),
    Span("test batch", "test epoch", "One test batch.", _BATCH),
    Span("predict epoch", "fit started", "One pass over the data to predict.", _EPOCH),
    Span("predict batch", "predict epoch", "One batch of predictions.", _BATCH),
    Span(
        "checkpoint",
        "train epoch",
        "The blocking part of writing a checkpoint.",
        ("run.id", "checkpoint.path", "epoch.index", "global_step"),
    ),
    Span(
        "fit",
        "fit started",
        "The whole run, written last.",
        ("run.id", "model.name", "outcome", "reason", "global_step", "batches.total", *_PHASES),
    ),
    Span(
        _INFERENCE,
        None,
        "A request, of the helper Inference or of liquid-train serve; its parent is the caller's span, if any.",
        ("run.id", "model.name", "input.shape", "output.shape"),
    ),
    Span("preprocess_input", _INFERENCE, "Makes tensors of what was asked.", ("input.shape",)),
    Span(
        "model_forward_pass",
        _INFERENCE,
        "The model's part, host time; when served, with the wait for a batch of that many series.",
        ("model.type", "model.parameters", "device", "batch.samples", "wait.duration"),
    ),
    Span("postprocess_output", _INFERENCE, "Makes an answer of the output.", ("output.shape",)),
)

SPANS: dict[str, Span] = {span.name: span for span in _ALL}
REQUEST_SPANS = frozenset(name for name, span in SPANS.items() if _INFERENCE in (name, span.parent))
"""Those of inference outside a Trainer."""
