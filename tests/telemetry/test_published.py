"""What the exporter is given while a run goes on, not only at its end."""

import time
from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Callback
from tiny import Tiny, fit, loader, only_run, trainer

from liquid_telemetry import Telemetry
from liquid_telemetry.observe.clock import RunClock


@pytest.fixture
def at_once(monkeypatch):
    """As if every batch took seconds."""
    monkeypatch.setattr("liquid_telemetry.observe.loop.DRAIN_EVERY_NS", 0)
    monkeypatch.setattr("liquid_telemetry.metrics.publish.SNAPSHOT_EVERY", 0)


@pytest.fixture
def slow_epochs(monkeypatch):
    """As if every epoch took seconds, and no batch one."""
    monkeypatch.setattr("liquid_telemetry.metrics.publish.MILESTONE_EVERY", 0)


class Peek(Callback):
    """Reads what has been published, in hooks of its choice; ``skip`` leaves that many calls out."""

    def __init__(self, hook, skip=0):
        self.seen, self.skip = [], skip
        setattr(self, hook, self.look)

    def look(self, *_):
        if self.skip:
            self.skip -= 1
        else:
            self.seen.append(only_run().metrics)


def epoch_of(metrics):
    return metrics["training_epoch"][()]


@pytest.mark.usefixtures("slow_epochs")
def test_a_validation_is_published_when_it_ends():
    peek = Peek("on_train_batch_start", skip=2)
    fit(Telemetry(), peek, max_epochs=1, val_check_interval=2, num_sanity_val_steps=0)
    (third,) = peek.seen
    assert third["training_epoch_duration_seconds_count"][("stage", "validation"),] == 1
    assert tuple(third["validation_loss"]) == ((),)
    assert third["training_logged_metric"].keys() >= {(("name", "val_acc"), ("stage", "validation"))}


@pytest.mark.usefixtures("slow_epochs")
def test_an_epoch_is_published_before_the_first_batch_of_the_next():
    peek = Peek("on_train_batch_start", skip=3)
    fit(Telemetry(), peek, max_epochs=2, num_sanity_val_steps=0)
    second = peek.seen[0]
    assert epoch_of(second) == 1
    assert second["training_epoch_duration_seconds_count"][("stage", "train"),] == 1
    assert second["training_loss"].keys() == {(("epoch", "0"),)}  # a gap until the next would break the line
    assert only_run().metrics["training_loss"].keys() == {(("epoch", "1"),)}


def test_a_checkpoint_is_published(tmp_path):
    class Saving(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 1:
                trainer.save_checkpoint(tmp_path / "kept.ckpt")

    peek = Peek("on_train_batch_start", skip=2)
    fit(Telemetry(), Saving(), peek, max_epochs=1, limit_val_batches=0)
    assert peek.seen[0]["training_checkpoints_total"] == {(): 1}


def test_epochs_of_no_time_do_not_spend_it_on_publishing(monkeypatch):
    from liquid_telemetry.spool import RunSeat

    published = []
    publish = RunSeat.publish
    monkeypatch.setattr(RunSeat, "publish", lambda seat, text: published.append(1) or publish(seat, text))
    began = time.monotonic()
    fit(Telemetry(), max_epochs=60)
    kinds, forced = 4, 6
    assert len(published) <= forced + kinds * (1 + (time.monotonic() - began) / 0.2)


@pytest.mark.usefixtures("at_once")
def test_what_steps_log_is_published_within_the_epoch():
    class Logging(Tiny):
        def training_step(self, batch, batch_idx):
            self.log("train_top1", 0.25 * (batch_idx + 1), on_step=True)
            return super().training_step(batch, batch_idx)

    peek = Peek("on_train_batch_start", skip=2)
    fit(Telemetry(), peek, model=Logging(), max_epochs=1, limit_val_batches=0)
    (third,) = peek.seen
    logged = {dict(labels)["name"]: value for labels, value in third["training_logged_metric"].items()}
    assert logged["train_top1"] == 0.5
    assert logged["train_loss_step"] == pytest.approx(third["training_loss"][(("epoch", "0"),)])
    assert third["model_accuracy"] == {(("dataset", "train"),): 0.5}


def test_a_wall_clock_that_is_corrected_is_followed_by_points_in_time(monkeypatch):
    """Spans keep the order that they have; how long ago something was is asked of the clock as it is now."""
    late, real = [7200.0], time.time_ns
    monkeypatch.setattr("liquid_telemetry.observe.clock.time.time_ns", lambda: real() - int(late[0] * 1e9))

    class Correcting(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            late[0] = 0.0

    fit(Telemetry(), Correcting())
    run = only_run()
    for name in ("training_last_progress_timestamp_seconds", "training_epoch_start_timestamp_seconds"):
        assert abs(time.time() - run.metrics[name][()]) < 60
    starts = [span["start"] for span in run.spans]
    assert starts[0] < 1e9 * (time.time() - 7000)
    assert max(starts) < 1e9 * (time.time() - 7000)


def test_a_clock_of_ones_own_has_no_drift():
    assert RunClock(lambda: 5).drift_ns == 0
    assert RunClock(lambda: 5, iter((10, 17)).__next__).drift_ns == 7


@pytest.mark.parametrize("name", ["f_\udce9", "tab\tnew\nline"])
def test_a_name_that_utf_8_cannot_hold(name):
    class Odd(Tiny):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log(name, 1.0)

    fit(Telemetry(model_name=f"model {name}"), model=Odd())
    logged = {dict(labels)["name"] for labels in only_run().metrics["training_logged_metric"]}
    assert name.encode("utf-8", "backslashreplace").decode() in logged
    assert only_run().record["model_name"].encode()


@pytest.mark.usefixtures("at_once")
def test_the_estimate_of_the_end_knows_the_time_that_is_left():
    class Slow(Tiny):
        def training_step(self, batch, batch_idx):
            time.sleep(0.02)
            return super().training_step(batch, batch_idx)

    peek = Peek("on_train_batch_start", skip=40)
    made = trainer(Telemetry(), peek, max_epochs=10_000, max_time=timedelta(seconds=3))
    made.fit(Slow(), loader(100), loader(1))
    assert all(0 < metrics["training_eta_seconds"][()] < 5 for metrics in peek.seen)
    assert 0.9 < only_run().metrics["training_progress_ratio"][()] <= 1
    assert only_run().metrics["training_eta_seconds"] == {(): 0.0}


def test_more_learning_rates_than_are_shown_are_counted():
    class Many(Tiny):
        def __init__(self):
            super().__init__()
            self.parts = torch.nn.ParameterList(torch.zeros(1) for _ in range(20))

        def configure_optimizers(self):
            return torch.optim.SGD([{"params": [part]} for part in self.parameters()], lr=0.1)

    fit(Telemetry(), model=Many())
    metrics = only_run().metrics
    assert len(metrics["training_learning_rate"]) == 16
    dropped = metrics["telemetry_dropped_total"]
    assert dropped[("reason", "learning_rate_groups"), ("signal", "metrics")] == 22 - 16


def test_the_series_of_a_later_stage_begin_at_zero():
    peek = Peek("on_test_batch_start")
    made = fit(Telemetry(), peek)
    made.test(Tiny(), loader(2), verbose=False)
    first = peek.seen[0]
    assert first["training_batches_total"][("stage", "test"),] == 0
    assert first["training_batch_duration_seconds_count"][("stage", "test"),] == 0
    assert only_run().metrics["training_batches_total"][("stage", "test"),] == 2
