"""What is emitted is what the catalogue declares, no more and no less."""

import math
import os
import signal
import warnings
from contextlib import suppress
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from stream import Stream
from tiny import Tiny, TinyData, fit, only_run, runs, workplace

from liquid_telemetry import Telemetry
from liquid_telemetry.observe import observer, progress
from liquid_telemetry.observe.device import DeviceClock
from liquid_telemetry.signals import ATTRIBUTES, EVENTS, METRICS, NAMESPACE, PREFIX, REQUEST_SPANS, SPANS
from liquid_telemetry.signals._events import COMMON_FIELDS


class Eventful(Tiny):
    """Returns a loss, None and NaN, in this order."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return [loss, None, loss * 0 + math.nan][batch_idx]


class Failing(Tiny):
    def training_step(self, batch, batch_idx):
        raise ValueError("as asked")


class Terminated(Tiny):
    def training_step(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, batch_idx)


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    """Everything that a set of runs emits, in which everything happens that is in the catalogue."""
    with (
        workplace(tmp_path_factory.mktemp("catalogue")),
        warnings.catch_warnings(),
        pytest.MonkeyPatch.context() as patch,
    ):
        warnings.simplefilter("ignore")
        patch.setattr(progress, "cuda_bytes", lambda: {"cuda_allocated": 1, "cuda_reserved": 2})
        keep = ModelCheckpoint("kept", filename="{step}", save_top_k=-1)
        patch.setattr(observer, "device_clock", lambda device: DeviceClock(Stream().event, every=1))
        telemetry = Telemetry(gradient_norm=True, device_phases=True)
        made = fit(telemetry, keep, model=Eventful(), enable_checkpointing=True)
        for stage in ("validate", "test", "predict"):
            getattr(made, stage)(Tiny(), datamodule=TinyData())
        fit(Telemetry(), ckpt_path="kept/step=3.ckpt")
        for model in (Failing(), Terminated()):
            with suppress(ValueError, SystemExit):
                fit(Telemetry(), model=model)
        done = runs()
        texts = [path.read_text() for path in (done[0].spool / "runs").glob("*/0.prom")]
        families = [family for text in texts for family in text_string_to_metric_families(text)]
        yield SimpleNamespace(
            spans=[span for run in done for span in run.spans],
            events=[event for run in done for event in run.events],
            families=families,
        )


def test_every_metric_of_a_run_with_its_type_labels_and_help(emitted):
    seen = {}
    for family in emitted.families:
        name = family.name + ("_total" if family.type == "counter" else "")
        for sample in family.samples:
            labels = set(sample.labels) - {"le"}
            seen.setdefault(name, set()).add((family.type, family.documentation, frozenset(labels)))
    declared = {
        metric.full_name: {
            (
                metric.type,
                metric.help,
                frozenset((*metric.labels, *(["model_name"] if metric.model_labelled else []))),
            )
        }
        for metric in METRICS.values()
        if metric.source == "run"
    }
    assert seen == declared


def test_counters_and_histograms_are_there_before_their_first_increase(tmp_path):
    seen = []

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(only_run().metrics)

    with workplace(tmp_path):
        fit(Telemetry(), Look())
    (found,) = seen
    for stage in ("train", "validation"):
        for name in (
            "batches_total",
            "samples_total",
            "batch_duration_seconds_count",
            "epoch_duration_seconds_count",
        ):
            assert found[f"training_{name}"][("stage", stage),] == 0
    assert found["training_checkpoints_total"] == found["training_nonfinite_losses_total"] == {(): 0}


def test_every_bucket(emitted):
    for family in emitted.families:
        if family.type == "histogram":
            bounds = {float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket")}
            assert bounds == {*METRICS[family.name.removeprefix(PREFIX)].buckets, math.inf}


def test_every_span_with_its_parent_and_attributes(emitted):
    names = {span["spanId"]: span["name"] for span in emitted.spans}
    fitted = {span["traceId"]: span["end"] for span in emitted.spans if span["name"] == "fit"}
    assert {span["name"] for span in emitted.spans} == SPANS.keys() - REQUEST_SPANS
    for span in emitted.spans:
        declared = SPANS[span["name"]]
        alone = span["name"] == "validation epoch" and span["start"] > fitted[span["traceId"]]
        assert names.get(span.get("parentSpanId")) == ("fit started" if alone else declared.parent)
        own = {name.removeprefix(NAMESPACE) for name in span["attributes"] if name != "error.type"}
        assert own <= set(declared.attributes), span["name"]


def test_every_attribute(emitted):
    seen = {name for span in emitted.spans for name in span["attributes"] if name != "error.type"}
    elsewhere = {name for span in REQUEST_SPANS for name in SPANS[span].attributes}
    elsewhere -= {name for span in SPANS.keys() - REQUEST_SPANS for name in SPANS[span].attributes}
    assert seen == {NAMESPACE + name for name in ATTRIBUTES.keys() - elsewhere}


def test_every_event_with_its_level_and_fields(emitted):
    by_the_exporter_alone = {"training_stalled", "training_recovered"}
    by_commands = {event.name for event in EVENTS.values() if event.command}
    assert {event["event"] for event in emitted.events} == EVENTS.keys() - by_the_exporter_alone - by_commands
    for event in emitted.events:
        declared = EVENTS[event["event"]]
        assert event["level"] == declared.level
        assert set(event) - set(COMMON_FIELDS) == set(declared.fields)
        assert list(event)[: len(COMMON_FIELDS)] == list(COMMON_FIELDS)
