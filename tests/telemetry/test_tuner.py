"""What a Tuner tries before the run is no run, and nothing of it is left in the one that follows."""

import warnings

import pytest
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.tuner import Tuner
from tiny import Tiny, TinyData, dataset, fit, only_run, trainer
from torch.utils.data import DataLoader

from liquid_telemetry import Telemetry
from liquid_telemetry.observe.records import RunEnded
from liquid_telemetry.testing import Recorder


def test_what_a_tuner_restores_is_no_resumed_run():
    made, model = trainer(Telemetry(), max_epochs=1), Tiny()
    Tuner(made).lr_find(model, datamodule=TinyData(), num_training=3, update_attr=True)
    made.fit(model, datamodule=TinyData())
    (started,) = only_run().events_named("training_started")
    assert started.get("resumed_from") is None
    assert only_run().manifest["resumed_from"] is None


class TestTuner:
    @pytest.fixture(autouse=True)
    def quiet(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    class Tuned(TinyData):
        batch_size = 2

        def train_dataloader(self):
            return DataLoader(dataset(), batch_size=self.batch_size)

    def check(self, made, recorder):
        made.fit(made.lightning_module or Tiny(), datamodule=TinyData())
        run = only_run()
        assert run.record["status"] == "completed"
        assert run.metrics["training_batches_total"][("stage", "train"),] == 6
        assert len(run.events_named("training_started")) == len(run.spans_named("fit started")) == 1
        assert len(recorder.of(RunEnded)) == 1

    def test_lr_find_then_fit(self):
        recorder = Recorder()
        made = trainer(Telemetry(), recorder)
        Tuner(made).lr_find(Tiny(), datamodule=TinyData(), num_training=3, early_stop_threshold=None)
        assert only_run().record["status"] == "tuned"
        assert not only_run().dir.joinpath("events.jsonl").exists()
        self.check(made, recorder)

    def test_scale_batch_size_then_fit(self):
        recorder = Recorder()
        made = trainer(Telemetry(), recorder)
        Tuner(made).scale_batch_size(Tiny(), datamodule=self.Tuned(), max_trials=2, steps_per_trial=1)
        assert only_run().record["status"] == "tuned"
        self.check(made, recorder)

    def test_learning_rate_finder_within_fit(self):
        recorder = Recorder()
        finder = LearningRateFinder(num_training_steps=3, early_stop_threshold=None)
        fit(Telemetry(), recorder, finder)
        run = only_run()
        assert run.record["status"] == "completed"
        assert run.metrics["training_batches_total"][("stage", "train"),] == 6
        assert len(recorder.of(RunEnded)) == 1
