"""Small parts on their own: files of lines, names of metrics, sizes of batches, registries, clocks."""

import errno
import json
import os
from collections import UserDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from lightning.pytorch import Callback
from prometheus_client import CollectorRegistry, Counter, generate_latest
from tiny import Tiny, TinyData, fit, samples, trainer
from torch.nn.utils.rnn import pack_sequence

from liquid_telemetry import PrometheusMetrics, Telemetry
from liquid_telemetry.files import LineFile, rank_name
from liquid_telemetry.logs.render import finite, render_json, timestamp
from liquid_telemetry.metrics.store import Histogram
from liquid_telemetry.observe.batches import SampleCounter, batch_size
from liquid_telemetry.observe.clock import RunClock
from liquid_telemetry.observe.names import Freshness, pick_accuracy, pick_loss
from liquid_telemetry.signals import FAILURE_REASONS, JOB_STATES
from liquid_telemetry.testing import TickingClock
from liquid_train.data.batch import Batch


class TestLineFile:
    def test_appends_whole_lines_and_opens_again(self, tmp_path):
        file = LineFile(tmp_path / "new" / "events.jsonl")
        file.write("one\n")
        file.close()
        file.close()
        file.write("two\n")
        file.close()
        assert file.path.read_text() == "one\ntwo\n"

    def test_keeps_a_number_of_parts_of_a_size(self, tmp_path):
        file = LineFile(tmp_path / "events.jsonl", max_bytes=10, max_parts=3)
        for at in range(9):
            file.write(f"{at:04}\n")
        file.close()
        parts = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert parts == {
            "events.jsonl": "0008\n",
            "events.1.jsonl": "0006\n0007\n",
            "events.2.jsonl": "0004\n0005\n",
        }

    def test_a_line_longer_than_a_part_is_whole(self, tmp_path):
        file = LineFile(tmp_path / "events.jsonl", max_bytes=10)
        for line in ("x" * 50 + "\n", "short\n"):
            file.write(line)
        file.close()
        assert (tmp_path / "events.1.jsonl").read_text() == "x" * 50 + "\n"

    def test_a_torn_line_is_taken_back(self, tmp_path, monkeypatch):
        file = LineFile(tmp_path / "events.jsonl")
        file.write("whole\n")
        real, calls = os.write, []

        def full(descriptor, data):
            calls.append(data)
            if len(calls) == 1:
                return real(descriptor, data[:3])
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space"):
                file.write("torn apart\n")
        assert file.path.read_text() == "whole\n"
        file.write("again\n")
        file.close()
        assert file.path.read_text() == "whole\nagain\n"

    def test_short_writes_are_continued(self, tmp_path, monkeypatch):
        real = os.write
        monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:2]))
        file = LineFile(tmp_path / "events.jsonl")
        file.write("a longer line\n")
        file.close()
        assert file.path.read_text() == "a longer line\n"

    def test_text_that_is_no_unicode(self, tmp_path):
        file = LineFile(tmp_path / "events.jsonl")
        file.write("a lone surrogate \ud800\n")
        file.close()
        assert file.path.read_bytes() == b"a lone surrogate \\ud800\n"

    def test_names_of_ranks(self):
        assert (rank_name("events", 0), rank_name("events", 3)) == ("events.jsonl", "events.rank3.jsonl")


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "acc",
            "accuracy",
            "train_acc",
            "train_acc_epoch",
            "val/accuracy",
            "val-acc",
            "val.acc",
            "test acc",
            "top1",
            "val/top5_acc",
            "top_5_accuracy",
            "val_MulticlassAccuracy",
            "BinaryAccuracy",
            "balanced_accuracy",
            "acc1",
            "accuracy@1",
            "val_acc/dataloader_idx_0",
        ],
    )
    def test_an_accuracy(self, name):
        assert pick_accuracy([name]) == name

    @pytest.mark.parametrize(
        "name", ["acceleration", "accumulate", "vacc", "loss", "accident_rate", "f1", "topology"]
    )
    def test_no_accuracy(self, name):
        assert pick_accuracy([name]) is None

    @pytest.mark.parametrize(
        "name", ["loss", "train_loss", "val/loss", "loss_epoch", "val_loss/dataloader_idx_1"]
    )
    def test_a_loss(self, name):
        assert pick_loss([name]) == name

    @pytest.mark.parametrize("name", ["lossless", "floss", "acc", "gloss_index"])
    def test_no_loss(self, name):
        assert pick_loss([name]) is None

    def test_the_value_of_the_epoch_before_that_of_a_step(self):
        assert pick_loss(["train_loss", "train_loss_step", "train_loss_epoch"]) == "train_loss_epoch"
        assert pick_loss(["val_loss_aux", "val_loss"]) == "val_loss"

    @pytest.mark.parametrize(
        "logged",
        [
            {"kl_loss": 0, "val_loss": 1, "acc_rmse": 0, "val_accuracy": 1},
            {"loss_kl": 0, "aux_loss": 1, "acc_kl": 0, "aux_acc": 1},
            {"val/l_loss": 0, "val/loss/dataloader_idx_0": 1, "b_acc": 0, "val/top1/dataloader_idx_0": 1},
            {"kl_loss_epoch": 0, "train_loss": 1, "f_acc_epoch": 0, "train_acc": 1},
        ],
    )
    def test_the_plainest_name_before_the_shortest(self, logged):
        assert [logged[pick_loss(logged)], logged[pick_accuracy(logged)]] == [1, 1]

    @pytest.mark.parametrize(
        ("names", "key", "expected"),
        [
            (["a", "b"], "b", "b"),
            (["kl_loss", "valid_loss"], "train_loss", "valid_loss"),
            (["kl_loss", "val/loss_epoch"], "loss", "val/loss_epoch"),
            (["my_val_loss"], "train_loss", "my_val_loss"),
            (["kl", "kl_epoch", "loss"], "kl", "kl_epoch"),
            (["val_kl", "val_loss"], "train_kl", "val_kl"),
            (["loss"], "kl", None),
        ],
    )
    def test_the_users_key(self, names, key, expected):
        assert pick_loss(names, key) == expected

    def test_only_new_values_are_fresh(self):
        fresh, first, second = Freshness(), torch.tensor(1.0), torch.tensor(1.0)
        assert fresh.take({"x": first, "text": "no", "vector": torch.ones(2)}) == {"x": first}
        assert fresh.take({"x": first.detach()}) == {}
        assert fresh.take({"x": second}) == {"x": second}


class Named(NamedTuple):
    text: list
    values: torch.Tensor


@dataclass
class Data:
    name: str
    values: torch.Tensor


@dataclass(slots=True)
class Slotted:
    values: torch.Tensor


class Plain:
    def __init__(self):
        self.me, self.values = self, torch.zeros(7, 2)


ROWS = torch.zeros(7, 2)


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (ROWS, 7),
        (torch.tensor(3.0), 1),
        ((ROWS, torch.zeros(3)), 7),
        ([["a", "b"], {"deep": (None, ROWS)}], 7),
        ({"text": ["a"] * 7, "values": ROWS}, 7),
        (UserDict(values=ROWS), 7),
        (Named(["a"], ROWS), 7),
        (Data("a", ROWS), 7),
        (Slotted(ROWS), 7),
        (Plain(), 7),
        (pack_sequence([torch.zeros(5, 2), torch.zeros(3, 2), torch.zeros(1, 2)]), 3),
        (Batch(torch.zeros(7, 5, 2), None, torch.zeros(7), torch.zeros(7)), 7),
        (torch.zeros(0, 2), 0),
        (["no", "tensors"], 0),
        (None, 0),
        (3, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_samples_of_a_batch(batch, size):
    assert batch_size(batch) == size


def test_a_batch_of_endless_depth_and_width():
    loop = []
    loop.append(loop)
    assert batch_size(loop) == 0
    assert batch_size([0] * 10_000_000) == 0


def test_samples_of_like_and_unlike_batches():
    batches = [
        [torch.zeros(4, 3), torch.zeros(2)],
        [torch.zeros(3, 3), torch.zeros(2)],
        [],
        {"x": torch.zeros(5, 2)},
        (torch.tensor(1.0), torch.zeros(6)),
        (torch.zeros(7),),
        None,
        torch.zeros(8, 1),
    ]
    counter = SampleCounter()
    assert [counter.count(batch) for batch in batches] == [batch_size(batch) for batch in batches]
    assert [SampleCounter(lambda _: 9).count(batch) for batch in batches] == [9] * len(batches)


class TestRegistry:
    def test_the_users_registry_shows_every_model_and_each_series_once(self):
        registry = CollectorRegistry()
        mine = Counter("mine", "The user's own.", registry=registry)
        mine.inc()
        for name in ("first", "second"):
            fit(PrometheusMetrics(registry=registry, model_name=name))
        text = generate_latest(registry).decode()
        lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
        assert len(set(lines)) == len(lines)
        assert "mine_total 1.0" in text
        for name in ("first", "second"):
            assert f'liquid_nn_training_batches_total{{model_name="{name}",stage="train"}} 6.0' in text

    def test_a_second_run_of_a_model_takes_the_place_of_the_first(self):
        registry = CollectorRegistry()
        for epochs in (2, 1):
            fit(Telemetry(registry=registry), max_epochs=epochs)
        assert (
            registry.get_sample_value(
                "liquid_nn_training_batches_total", {"model_name": "Tiny", "stage": "train"}
            )
            == 3
        )

    def test_counters_that_all_runs_share_never_fall(self):
        registry = CollectorRegistry()

        def inferences():
            return {
                sample.name: sample.value
                for family in registry.collect()
                for sample in family.samples
                if sample.name
                in ("liquid_nn_inference_requests_total", "liquid_nn_inference_duration_seconds_count")
            }

        seen = []
        for epochs in (2, 1):
            fit(Telemetry(registry=registry), max_epochs=epochs)
            seen.append(inferences())
        assert [set(values.values()) for values in seen] == [{4}, {6}]

    def test_jobs_are_counted_over_the_runs_of_a_model(self):
        registry = CollectorRegistry()

        def shown(name, **labels):
            return registry.get_sample_value(f"liquid_nn_training_{name}", {"model_name": "Job", **labels})

        class Look(Callback):
            def on_train_epoch_start(self, trainer, pl_module):
                seen.append((shown("active"), shown("job_state", state="running")))

        class Failing(Tiny):
            def training_step(self, batch, batch_idx):
                raise MemoryError("as asked")

        seen = []
        callback = Telemetry(registry=registry, model_name="Job")
        made = fit(callback, Look(), max_epochs=1)
        made.test(Tiny(), datamodule=TinyData(), verbose=False)
        with pytest.raises(MemoryError):
            fit(callback, Look(), model=Failing())
        fit(callback, fast_dev_run=True)
        assert seen == [(1, 1), (1, 1)]
        assert (shown("jobs_started_total"), shown("jobs_completed_total")) == (2, 1)
        failed = {reason: shown("jobs_failed_total", reason=reason) for reason in FAILURE_REASONS}
        assert failed == {**dict.fromkeys(FAILURE_REASONS, 0), "out_of_memory": 1}
        assert shown("jobs_interrupted_total", reason="user") == 0

    def test_a_job_that_has_ended_is_not_active(self):
        registry = CollectorRegistry()
        fit(PrometheusMetrics(registry=registry))
        states = {
            state: registry.get_sample_value(
                "liquid_nn_training_job_state", {"model_name": "Tiny", "state": state}
            )
            for state in JOB_STATES
        }
        assert states == {**dict.fromkeys(JOB_STATES, 0), "completed": 1}
        assert registry.get_sample_value("liquid_nn_training_active", {"model_name": "Tiny"}) == 0
        assert registry.get_sample_value("liquid_nn_memory_usage_bytes", {"component": "process"}) > 0

    def test_the_epoch_label_shows_the_current_epoch_alone(self):
        registry = CollectorRegistry()
        fit(Telemetry(registry=registry), max_epochs=4)
        found = [f for f in registry.collect() if f.name == "liquid_nn_training_loss"]
        assert [sample.labels["epoch"] for family in found for sample in family.samples] == ["3"]


def test_buckets_hold_their_upper_bound():
    histogram = Histogram((0.1, 0.5))
    for value in (0.05, 0.1, 0.2, 0.5, 0.6):
        histogram.observe(value)
    assert histogram.buckets() == [("0.1", 2.0), ("0.5", 4.0), ("+Inf", 5.0)]
    assert histogram.sum == pytest.approx(1.45)


def test_a_wall_clock_that_steps_moves_nothing():
    now, wall = TickingClock(), iter([1_700_000_000_000_000_000, 0])
    clock = RunClock(now, lambda: next(wall))
    now.advance(2.5)
    assert clock.unix_ns(now()) == 1_700_000_002_500_000_000


class TestRendering:
    def test_what_json_cannot_say_is_null(self):
        event = {
            "event": "x",
            "loss": float("nan"),
            "deep": {"a": [float("inf"), 1.5]},
            "t": torch.tensor(1.0),
        }
        text = render_json(None, "info", event)
        assert json.loads(text, parse_constant=pytest.fail) == {
            "event": "x",
            "loss": None,
            "deep": {"a": [None, 1.5]},
            "t": "tensor(1.)",
        }

    def test_the_common_fields_come_first(self):
        event = {"b": 1, "event": "x", "timestamp": "now", "trace_id": None}
        assert list(json.loads(render_json(None, "info", event))) == ["timestamp", "event", "b"]

    def test_times_are_utc_to_the_microsecond(self):
        assert timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"

    def test_keys_of_any_kind(self):
        assert finite({1: (2.0, float("-inf"))}) == {"1": [2.0, None]}


def test_a_scrape_of_a_registry_while_training_sees_a_whole_exposition():
    registry = CollectorRegistry()

    class Scraping(Tiny):
        def training_step(self, batch, batch_idx):
            generate_latest(registry)
            return super().training_step(batch, batch_idx)

    trainer(Telemetry(registry=registry)).fit(Scraping(), datamodule=TinyData())
    from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

    assert samples(openmetrics(registry).decode())["training_global_step"] == {(): 6}
