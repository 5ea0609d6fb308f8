"""Training loops of every shape, compared with what a hand-written callback sees."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from tiny import Tiny, TinyData, dataset, fit, loader, only_run, runs
from torch.utils.data import DataLoader, IterableDataset

from liquid_telemetry import Telemetry
from liquid_telemetry.observe.records import BatchBlock, EpochEnded, EpochStarted, Progress, RunEnded
from liquid_telemetry.testing import Recorder


class Diary(Callback):
    """Writes down losses as they come, unscaled, and what Lightning has logged at the end of each epoch."""

    def __init__(self):
        self.losses, self.steps, self.logged = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        scale = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        found = outputs.get("loss") if isinstance(outputs, dict) else None
        self.losses.append(None if found is None else float(found) * scale)
        self.steps.append(trainer.global_step)

    def on_train_epoch_end(self, trainer, pl_module):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def columns(recorder, name, stage="train"):
    return [value for b in recorder.of(BatchBlock) if b.stage == stage for value in getattr(b, name)]


def epochs(recorder, stage="train"):
    return [record for record in recorder.of(EpochEnded) if record.stage == stage]


def observe(model=None, *, recorder=None, **options):
    recorder, diary = recorder or Recorder(), Diary()
    fit(recorder, Telemetry(), diary, model=model, **options)
    assert columns(recorder, "loss") == pytest.approx(diary.losses)
    assert columns(recorder, "global_step") == diary.steps
    return recorder, diary


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_accumulation_leaves_the_loss_unscaled(accumulate):
    recorder, diary = observe(accumulate_grad_batches=accumulate)
    for epoch, logged in zip(epochs(recorder), diary.logged, strict=True):
        assert epoch.loss == pytest.approx(logged["train_loss_epoch"])
    assert columns(recorder, "global_step")[-1] == {1: 6, 2: 4, 4: 2}[accumulate]
    assert only_run().metrics["training_loss"] == {(("epoch", "1"),): pytest.approx(diary.losses[-1])}


@pytest.mark.parametrize("first", [True, False])
def test_a_scheduler_of_the_accumulation_before_and_after_ours(first):
    class Constant(Tiny):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * 0 + 8.0

    recorder, scheduler = Recorder(), GradientAccumulationScheduler({0: 1, 1: 4})
    callbacks = [Telemetry(), scheduler] if first else [scheduler, Telemetry()]
    fit(recorder, *callbacks, model=Constant(), max_epochs=3)
    assert columns(recorder, "loss") == [8.0] * 9
    assert [epoch.loss for epoch in epochs(recorder)] == [8.0] * 3


class Manual(Tiny):
    """Two optimizers, stepped by hand."""

    returns = "loss"

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=rate) for rate in (0.1, 0.01)]

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(loss, retain_graph=True)
            optimizer.step()
        return {"loss": loss, "dict": {"loss": loss, "extra": 1}, "none": None}[self.returns]


@pytest.mark.parametrize("returns", ["loss", "dict"])
def test_manual_optimisation_with_two_optimizers(returns):
    model = Manual()
    model.returns = returns
    recorder, _ = observe(model)
    assert columns(recorder, "global_step") == [2, 4, 6, 8, 10, 12]
    assert columns(recorder, "skipped") == [False] * 6
    assert only_run().metrics["training_learning_rate"] == {(("group", "0"),): 0.1, (("group", "1"),): 0.01}


def test_manual_optimisation_that_returns_nothing_is_read_from_the_log():
    model, seen = Manual(), []
    model.returns = "none"

    class Last(Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append(float(trainer.callback_metrics["train_loss_step"]))

    recorder, diary = Recorder(), Diary()
    fit(recorder, Telemetry(), Last(), diary, model=model)
    assert columns(recorder, "loss") == [
        None,
        None,
        pytest.approx(seen[2]),
        None,
        None,
        pytest.approx(seen[5]),
    ]
    assert columns(recorder, "skipped") == [False] * 6
    assert [epoch.loss for epoch in epochs(recorder)] == [
        pytest.approx(logged["train_loss_epoch"]) for logged in diary.logged
    ]
    assert only_run().metrics["training_loss"] == {(("epoch", "1"),): pytest.approx(seen[5])}


def test_a_step_that_returns_none_is_a_skipped_batch():
    class Skipping(Tiny):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx == 1 else loss

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*training_step. returned .None.*")
        recorder, _ = observe(Skipping())
    assert columns(recorder, "skipped") == [False, True, False] * 2
    assert [epoch.skipped for epoch in epochs(recorder)] == [1, 1]
    (event, _) = only_run().events_named("training_epoch_completed")
    assert (event["batches"], event["skipped_batches"]) == (3, 1)


def test_an_epoch_cut_short_by_the_model():
    class Short(Tiny):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 1 else None

    recorder = Recorder()
    fit(recorder, Telemetry(), model=Short())
    assert columns(recorder, "index") == [0, 1, 0, 1]
    assert columns(recorder, "skipped") == [False, True] * 2
    assert [(e.batches, e.skipped, e.complete) for e in epochs(recorder)] == [(2, 1, True)] * 2


def test_batches_that_are_none():
    class Holed(TinyData):
        def train_dataloader(self):
            batches = list(loader(3))
            return DataLoader([batches[0], None, batches[2]], batch_size=None)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*train_dataloader yielded None.*")
        recorder = Recorder()
        fit(recorder, Telemetry(), data=Holed())
    assert columns(recorder, "samples") == [4, 0, 4] * 2
    assert columns(recorder, "skipped") == [False, True, False] * 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter(dataset())


def test_an_iterable_dataset_without_length():
    class Streamed(TinyData):
        def train_dataloader(self):
            return DataLoader(Stream(), batch_size=4)

    recorder, _ = observe(data=Streamed())
    assert [epoch.batches for epoch in epochs(recorder)] == [3, 3]
    assert [e.expected_batches for e in recorder.of(EpochStarted) if e.stage == "train"] == [None, None]
    run = only_run()
    assert "training_progress_ratio" not in run.metrics
    assert run.events[0]["batches_per_epoch"] is None


def test_several_validation_loaders():
    class Several(TinyData):
        def val_dataloader(self):
            return [loader(2), loader(1)]

    recorder, _ = observe(data=Several())
    assert [epoch.batches for epoch in epochs(recorder, "validation")] == [3, 3]
    validation = epochs(recorder, "validation")[-1]
    assert validation.metrics.keys() == {
        f"{name}/dataloader_idx_{at}" for name in ("val_loss", "val_acc") for at in (0, 1)
    }
    assert validation.accuracy == validation.metrics["val_acc/dataloader_idx_0"]


def test_validation_within_an_epoch():
    recorder, _ = observe(val_check_interval=1, max_epochs=1)
    assert [epoch.batches for epoch in epochs(recorder, "validation")] == [2, 2, 2]
    run = only_run()
    (train,) = run.spans_named("train epoch")
    assert {span["parentSpanId"] for span in run.spans_named("validation epoch")} == {train["spanId"]}
    (event,) = run.events_named("training_epoch_completed")
    assert event["val_loss"] == run.events_named("validation_completed")[-1]["loss"]
    assert event["metrics"].keys() == {"train_loss", "train_loss_step", "train_loss_epoch", "train_acc"}


@pytest.mark.parametrize("stage", ["train", "validation"])
def test_a_stage_tells_only_what_it_has_logged(stage):
    class Reader(Callback):
        def on_validation_end(self, trainer, pl_module):
            assert "val_loss" in trainer.callback_metrics  # Lightning makes new tensors for each reader

    recorder = Recorder()
    fit(recorder, Reader())
    prefix = {"train": "train_", "validation": "val_"}[stage]
    for epoch in epochs(recorder, stage):
        assert epoch.metrics
        assert all(name.startswith(prefix) for name in epoch.metrics)


def test_values_logged_under_one_name_by_both_stages():
    class Same(Tiny):
        def training_step(self, batch, batch_idx):
            self.log("score", float(batch_idx), on_epoch=True, on_step=False)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self.log("score", 10.0 + batch_idx)

    recorder = Recorder()
    fit(recorder, model=Same(), max_epochs=1)
    (train,), (validation,) = epochs(recorder), epochs(recorder, "validation")
    assert (train.metrics["score"], validation.metrics["score"]) == (1.0, 10.5)


def test_values_logged_at_the_end_of_an_epoch_belong_to_it():
    class Late(Tiny):
        def on_train_epoch_end(self):
            self.log("late", float(self.current_epoch))

    recorder = Recorder()
    fit(recorder, model=Late())
    assert [epoch.metrics["late"] for epoch in epochs(recorder)] == [0.0, 1.0]


@pytest.mark.parametrize("options", [{"max_epochs": 0}, {"limit_train_batches": 0}])
def test_nothing_to_train(options):
    recorder = Recorder()
    fit(recorder, Telemetry(), **options)
    assert not epochs(recorder)
    (end,) = recorder.of(RunEnded)
    assert (end.outcome, end.batches) == ("completed", 0)
    assert only_run().record["status"] == "completed"


def test_parameters_without_a_shape_yet_are_not_counted():
    class Lazy(Tiny):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.LazyLinear(3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(Telemetry(), model=Lazy(), num_sanity_val_steps=0, max_epochs=1)
    assert only_run().events[0]["parameters"] == 0


def test_fast_dev_run_counts_one_batch():
    recorder = Recorder()
    fit(recorder, fast_dev_run=True)
    assert columns(recorder, "index") == [0]
    assert [run.job for run in recorder.runs] == [False]


def test_max_steps_ends_within_an_epoch():
    recorder, _ = observe(max_steps=4, max_epochs=-1)
    assert columns(recorder, "index") == [0, 1, 2, 0]
    assert only_run().metrics["training_progress_ratio"] == {(): 1.0}


class TestResume:
    def checkpoint(self, step, **options):
        keep = ModelCheckpoint("kept", filename="{step}", every_n_train_steps=step, save_top_k=-1)
        fit(Telemetry(), keep, enable_checkpointing=True, **options)
        return only_run()

    def test_at_the_end_of_an_epoch(self):
        first = self.checkpoint(3, max_epochs=1)
        recorder, _ = observe(ckpt_path="kept/step=3.ckpt", max_epochs=3)
        assert [epoch.epoch for epoch in epochs(recorder)] == [1, 2]
        assert columns(recorder, "global_step") == [4, 5, 6, 7, 8, 9]
        self.check_resumed(first)

    def test_within_an_epoch(self):
        first = self.checkpoint(2, max_epochs=1)
        recorder, _ = observe(ckpt_path="kept/step=2.ckpt", max_epochs=2)
        assert columns(recorder, "index") == [2, 0, 1, 2]
        assert [(e.epoch, e.batches) for e in epochs(recorder)] == [(0, 1), (1, 3)]
        assert [p.ratio for p in recorder.of(Progress) if p.global_step in (3, 6)] == [0.5, 0.5, 1.0, 1.0]
        self.check_resumed(first)

    def test_of_a_finished_run(self):
        first = self.checkpoint(6)
        recorder = Recorder()
        fit(recorder, Telemetry(), ckpt_path="kept/step=6.ckpt", max_epochs=2)
        assert not columns(recorder, "index")
        self.check_resumed(first)

    def check_resumed(self, first):
        second = runs()[-1]
        assert second.run_id != first.run_id
        assert second.record["status"] == "completed"
        assert second.manifest["resumed_from"] == first.run_id == second.events[0]["resumed_from"]
        assert second.spans[0]["attributes"]["liquid_train.resumed_from"] == first.run_id


class TestLossKey:
    class Two(Tiny):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("logged", loss * 5)
            return {"loss": loss, "own": loss.detach() * 3, "vector": torch.ones(2)}

    @pytest.mark.parametrize(("key", "factor"), [("own", 3), ("logged", 5), ("unknown", 1), ("vector", None)])
    def test_is_in_the_output_or_in_the_log(self, key, factor):
        recorder, diary = Recorder(loss_key=key), Diary()
        fit(
            recorder,
            Telemetry(loss_key=key),
            diary,
            model=self.Two(),
            accumulate_grad_batches=2,
            max_epochs=1,
        )
        found = only_run().metrics.get("training_loss")
        assert found == (factor and {(("epoch", "0"),): pytest.approx(diary.losses[-1] * factor)})

    def test_accuracy_key_picks_any_logged_value(self):
        recorder = Recorder(accuracy_key="train_loss")
        fit(recorder)
        for train in epochs(recorder):
            assert train.accuracy == train.metrics["train_loss_epoch"]
        for validation in epochs(recorder, "validation"):
            assert validation.accuracy == validation.metrics["val_loss"]
