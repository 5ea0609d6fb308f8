"""Exact numbers of a run whose every step takes a known time, in all three signals."""

import re
from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback
from timed import TimedData, TimedModel, timed_trainer
from tiny import only_run, workplace

from liquid_telemetry import Telemetry
from liquid_telemetry.observe.records import Progress
from liquid_telemetry.testing import Recorder, TickingClock

PHASES = {
    "data": 6.0,
    "transfer": 1.5,
    "forward": 6.0,
    "backward": 12.0,
    "optimizer": 24.0,
    "validation": 9.25 + 37.0,  # the sanity check included
    "checkpoint": 32.0,
    "other": 0.75,
}
EPOCH_PHASES = {
    "data": 3.0,
    "transfer": 0.75,
    "forward": 3.0,
    "backward": 6.0,
    "optimizer": 12.0,
    "validation": 18.5,
    "checkpoint": 0.0,
    "other": 0.375,
}
SANITY, EPOCH, CHECKPOINT = 9.25, 43.625, 16.0
TOTAL = SANITY + 2 * (EPOCH + CHECKPOINT)


class Diary(Callback):
    """Losses of all batches, and Lightning's own values at the end of each epoch."""

    def __init__(self):
        self.losses, self.trained, self.validated = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer, pl_module):
        self.trained.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    clock, diary = TickingClock(), Diary()
    recorder = Recorder()
    with workplace(tmp_path_factory.mktemp("timed")):
        telemetry = Telemetry(clock=clock, gradient_norm=True)
        timed_trainer(telemetry, recorder, diary).fit(TimedModel(clock), datamodule=TimedData(clock))
        run = only_run()
        start = run.spans[0]["start"]
        yield SimpleNamespace(run=run, diary=diary, records=recorder, metrics=run.metrics, start=start)


def series(**labels):
    return tuple(sorted(labels.items()))


def test_the_phases_add_up_to_the_wall_time():
    assert sum(PHASES.values()) == TOTAL
    assert sum(EPOCH_PHASES.values()) == EPOCH


def test_phases(timed):
    assert timed.metrics["training_phase_seconds_total"] == {series(phase=n): s for n, s in PHASES.items()}
    (end,) = timed.run.events_named("training_completed")
    assert end["phases"] == PHASES
    assert end["duration_seconds"] == TOTAL
    for event in timed.run.events_named("training_epoch_completed"):
        assert event["phases"] == EPOCH_PHASES
        assert event["duration_seconds"] == EPOCH


def test_loss_and_accuracy(timed):
    diary = timed.diary
    assert timed.metrics["training_loss"] == {series(epoch="1"): pytest.approx(diary.losses[-1])}
    assert timed.metrics["validation_loss"] == {(): diary.validated[-1]["val_loss"]}
    assert timed.metrics["model_accuracy"] == {
        series(dataset="train"): diary.trained[-1]["train_acc"],
        series(dataset="val"): diary.validated[-1]["val_acc"],
    }
    train = {"train_loss", "train_loss_step", "train_loss_epoch", "train_acc"}
    assert timed.metrics["training_logged_metric"] == {
        **{series(name=name, stage="train"): diary.trained[-1][name] for name in train},
        **{
            series(name=name, stage="validation"): diary.validated[-1][name]
            for name in ("val_loss", "val_acc")
        },
    }


def test_counts_and_positions(timed):
    expected = {
        "training_batches_total": {series(stage="train"): 6, series(stage="validation"): 4},
        "training_samples_total": {series(stage="train"): 12, series(stage="validation"): 8},
        "training_epoch": {(): 1},
        "training_global_step": {(): 6},
        "training_progress_ratio": {(): 1},
        "training_eta_seconds": {(): 0},
        "training_learning_rate": {series(group="0"): 0.025},  # what a third epoch would have
        "training_checkpoints_total": {(): 2},
        "training_nonfinite_losses_total": {(): 0},
    }
    assert {name: timed.metrics[name] for name in expected} == expected


def test_the_estimate_of_the_end_follows_the_pace_so_far(timed):
    halfway = next(record for record in timed.records.of(Progress) if record.ratio == 0.5)
    first = timed.records.of(Progress)[0]
    assert first.ratio == pytest.approx(1 / 6)
    assert first.eta_seconds is None
    pace = (halfway.time_ns - first.time_ns) / 1e9 / (0.5 - 1 / 6)
    assert halfway.eta_seconds == pytest.approx(0.5 * pace)


def test_histograms(timed):
    check = {
        ("training_batch_duration_seconds", "train"): (6, 42.0, "5.0", "10.0"),
        ("training_batch_duration_seconds", "validation"): (4, 32.0, "5.0", "10.0"),
        ("training_epoch_duration_seconds", "train"): (2, 2 * EPOCH, "15.0", "60.0"),
        ("training_epoch_duration_seconds", "validation"): (2, 37.0, "15.0", "60.0"),
        ("training_checkpoint_duration_seconds", None): (2, 32.0, "15.0", "60.0"),
    }
    for (name, stage), (count, total, below, above) in check.items():
        labels = {"stage": stage} if stage else {}
        assert timed.metrics[f"{name}_count"][series(**labels)] == count
        assert timed.metrics[f"{name}_sum"][series(**labels)] == total
        buckets = timed.metrics[f"{name}_bucket"]
        assert (buckets[series(le=below, **labels)], buckets[series(le=above, **labels)]) == (0, count)


def test_validation_is_inference(timed):
    labels = series(model_type="TimedModel", device="cpu")
    assert timed.metrics["inference_requests_total"] == {labels: 4}
    assert timed.metrics["inference_duration_seconds_count"] == {(): 4}
    assert timed.metrics["inference_duration_seconds_sum"] == {(): 32.0}
    buckets = timed.metrics["inference_duration_seconds_bucket"]
    assert (buckets[series(le="1.0")], buckets[series(le="+Inf")]) == (0, 4)


def test_moments(timed):
    second = SANITY + EPOCH + CHECKPOINT
    expected = {
        "training_epoch_start_timestamp_seconds": second,
        "training_last_progress_timestamp_seconds": second + EPOCH,
        "training_last_checkpoint_timestamp_seconds": TOTAL,
    }
    for name, seconds in expected.items():
        assert timed.metrics[name] == {(): pytest.approx(timed.start / 1e9 + seconds, abs=1e-6)}


def test_the_gradient_norm_is_that_of_the_last_second(timed):
    (norm,) = timed.metrics["training_gradient_norm"].values()
    assert norm > 0


def epoch_spans(start):
    """Name, parent, start and end of the spans of one epoch, in the order in which they are written."""
    batches = [(start + 1.25 + at * 8.375, start + 8.25 + at * 8.375) for at in range(3)]
    trained = start + 3 * 8.375
    validated = [(trained + 1.25 + at * 9.25, trained + 9.25 + at * 9.25) for at in range(2)]
    end = start + EPOCH
    return [
        *[("train batch", "train epoch", *times) for times in batches],
        *[("validation batch", "validation epoch", *times) for times in validated],
        ("validation epoch", "train epoch", trained, end),
        ("train epoch", "fit started", start, end),
        ("checkpoint", "train epoch", end, end + CHECKPOINT),
    ]


def test_the_whole_trace(timed):
    spans = timed.run.spans
    names = {span["spanId"]: span["name"] for span in spans}
    found = [
        (
            span["name"],
            names.get(span.get("parentSpanId")),
            (span["start"] - timed.start) / 1e9,
            (span["end"] - timed.start) / 1e9,
        )
        for span in spans
    ]
    assert found == [
        ("fit started", None, 0.0, 0.0),
        *epoch_spans(SANITY),
        *epoch_spans(SANITY + EPOCH + CHECKPOINT),
        ("fit", "fit started", 0.0, TOTAL),
    ]
    assert {span["traceId"] for span in spans} == {timed.run.manifest["trace_id"]}


def attributes(span):
    return {name.removeprefix("liquid_train."): value for name, value in span["attributes"].items()}


def test_attributes_of_each_kind_of_span(timed):
    run, run_id = timed.run, timed.run.run_id
    durations = {("data_wait" if n == "data" else n) + ".duration": s for n, s in EPOCH_PHASES.items()}
    assert attributes(run.spans_named("fit started")[0]) == {
        "run.id": run_id,
        "model.name": "TimedModel",
        "model.parameters": 15,
    }
    assert attributes(run.spans_named("train epoch")[1]) == {
        "run.id": run_id,
        "stage": "train",
        "epoch.index": 1,
        "global_step": 6,
        "loss": pytest.approx(timed.diary.trained[1]["train_loss_epoch"]),
        "accuracy": timed.diary.trained[1]["train_acc"],
        "learning_rate": 0.05,
        "batches.total": 3,
        "batches.recorded": 3,
        "batches.kept": "all",
        "samples.total": 6,
        **durations,
    }
    assert attributes(run.spans_named("train batch")[4]) == {
        "run.id": run_id,
        "stage": "train",
        "epoch.index": 1,
        "batch.index": 1,
        "batch.samples": 2,
        "global_step": 5,
        "loss": pytest.approx(timed.diary.losses[4]),
        "data_wait.duration": 1.0,
        "transfer.duration": 0.25,
        "forward.duration": 1.0,
        "backward.duration": 2.0,
        "optimizer.duration": 4.0,
    }
    assert attributes(run.spans_named("validation epoch")[0]) == {
        "run.id": run_id,
        "stage": "validation",
        "epoch.index": 0,
        "global_step": 3,
        "loss": timed.diary.validated[0]["val_loss"],
        "accuracy": timed.diary.validated[0]["val_acc"],
        "batches.total": 2,
        "batches.recorded": 2,
        "batches.kept": "all",
        "samples.total": 4,
    }
    assert attributes(run.spans_named("checkpoint")[1]) == {
        "run.id": run_id,
        "checkpoint.path": str(run.dir.parent.parent / "kept" / "epoch=1-step=6.ckpt"),
        "epoch.index": 1,
        "global_step": 6,
    }
    fit = attributes(run.spans_named("fit")[0])
    assert fit == {
        "run.id": run_id,
        "model.name": "TimedModel",
        "outcome": "completed",
        "global_step": 6,
        "batches.total": 6,
        **{("data_wait" if n == "data" else n) + ".duration": s for n, s in PHASES.items()},
    }


def test_all_events(timed):
    events, diary = timed.run.events, timed.diary
    root = timed.run.spans[0]["spanId"]
    epochs = [span["spanId"] for span in timed.run.spans_named("train epoch")]
    common = {
        "logger": "liquid_telemetry",
        "run_id": timed.run.run_id,
        "model_name": "TimedModel",
        "trace_id": timed.run.manifest["trace_id"],
        "level": "info",
    }
    for event in events:
        assert event.pop("timestamp").endswith("Z")

    def validated(at):
        values = diary.validated[at]
        return {
            **common,
            "event": "validation_completed",
            "span_id": epochs[at],
            "stage": "validation",
            "epoch": at,
            "loss": values["val_loss"],
            "accuracy": values["val_acc"],
            "duration_seconds": 18.5,
            "batches": 2,
            "samples": 4,
            "global_step": 3 * at + 3,
            "metrics": {name: values[name] for name in ("val_loss", "val_acc")},
        }

    def trained(at):
        values = diary.trained[at]
        return {
            **common,
            "event": "training_epoch_completed",
            "span_id": epochs[at],
            "epoch": at,
            "loss": pytest.approx(values["train_loss_epoch"]),
            "accuracy": values["train_acc"],
            "val_loss": diary.validated[at]["val_loss"],
            "val_accuracy": diary.validated[at]["val_acc"],
            "learning_rate": 0.1 / (at + 1),
            "duration_seconds": EPOCH,
            "batches": 3,
            "samples": 6,
            "skipped_batches": 0,
            "global_step": 3 * at + 3,
            "samples_per_second": 6 / EPOCH,
            "phases": EPOCH_PHASES,
            "metrics": {name: value for name, value in values.items() if name.startswith("train")},
        }

    def saved(at):
        return {
            **common,
            "event": "checkpoint_saved",
            "span_id": epochs[at],
            "path": str(timed.run.dir.parent.parent / "kept" / f"epoch={at}-step={3 * at + 3}.ckpt"),
            "epoch": at,
            "global_step": 3 * at + 3,
            "duration_seconds": CHECKPOINT,
        }

    assert events == [
        {
            **common,
            "event": "training_started",
            "span_id": root,
            "stage": "train",
            "resumed_from": None,
            "parameters": 15,
            "max_epochs": 2,
            "batches_per_epoch": 3,
            "strategy": "SingleDeviceStrategy",
            "world_size": 1,
            "rank": 0,
        },
        *[event for at in range(2) for event in (validated(at), trained(at), saved(at))],
        {
            **common,
            "event": "training_completed",
            "span_id": root,
            "duration_seconds": TOTAL,
            "epochs": 2,
            "global_step": 6,
            "batches": 6,
            "phases": PHASES,
        },
    ]


def test_the_manifest(timed):
    run = timed.run
    assert run.manifest == {
        "run_id": run.run_id,
        "trace_id": run.spans[0]["traceId"],
        "pid": run.record["pid"],
        "metrics_url": None,
        "events": str(run.dir / "events.jsonl"),
        "traces": str(run.dir / "traces.jsonl"),
        "spool": str(run.spool),
        "checkpoints": str(run.dir.parent.parent / "kept"),
        "resumed_from": None,
    }


def test_the_exemplar_of_a_bucket_is_a_batch_of_the_trace(timed):
    text = (timed.run.spool / "runs" / timed.run.run_id / "0.prom").read_text()
    found = re.findall(r'stage="(\w+)"} \S+ # {span_id="(\w+)",trace_id="(\w+)"} (\S+)', text)
    spans = {span["spanId"]: span for span in timed.run.spans}
    assert {stage for stage, *_ in found} == {"train", "validation"}
    for stage, span_id, trace_id, seconds in found:
        span = spans[span_id]
        assert (span["name"], span["traceId"]) == (f"{stage} batch", trace_id)
        assert float(seconds) == (span["end"] - span["start"]) / 1e9
