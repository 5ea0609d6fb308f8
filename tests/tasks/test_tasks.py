from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.nn import functional as F

from liquid_train import LiquidClassifier, LiquidRegressor
from liquid_train.data import ArchiveDataModule, Batch, SeriesDataModule, XorDataModule
from liquid_train.data.batch import collate
from liquid_train.errors import InputError
from liquid_train.tasks.schedule import warmup_cosine

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]


def trainer(**options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "enable_model_summary": False, **quiet, **options}
    )


def small_xor() -> XorDataModule:
    return XorDataModule(batch_size=16, train_size=40, val_size=20, test_size=24)


def whole(series: Any) -> Batch:
    return collate(list(series))


def test_sizes_come_from_the_data_and_go_into_the_checkpoint(tmp_path: Path) -> None:
    data, model = ArchiveDataModule("BasicMotions"), LiquidClassifier(units=4)
    run = trainer(limit_train_batches=1)
    run.fit(model, data)
    assert (model.hparams["input_size"], model.hparams["num_classes"]) == (6, 4)
    run.save_checkpoint(tmp_path / "model.ckpt", weights_only=False)
    loaded = LiquidClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    batch = whole(data.splits.test)
    assert torch.equal(loaded(batch), model.eval()(batch))


def test_logged_values_are_the_cross_entropy_and_accuracy_over_all_series() -> None:
    data, model = small_xor(), LiquidClassifier(units=8)
    run = trainer(max_epochs=2)
    run.fit(model, data)
    logged = run.callback_metrics
    assert set(logged) == {"train_loss", "train_acc", "val_loss", "val_acc"}
    batch = whole(data.splits.val)
    with torch.no_grad():
        outputs = model.eval()(batch)
    assert float(logged["val_loss"]) == pytest.approx(
        float(F.cross_entropy(outputs, batch.targets)), abs=1e-6
    )
    assert float(logged["val_acc"]) == float((outputs.argmax(1) == batch.targets).float().mean())
    (tested,) = run.test(model, data, verbose=False)
    assert set(tested) == {"test_loss", "test_acc"}


def test_predictions_are_probabilities() -> None:
    data, model = small_xor(), LiquidClassifier(units=8)
    predictions = torch.cat(trainer().predict(model, data))  # type: ignore[arg-type]
    assert predictions.shape == (24, 2)
    assert torch.allclose(predictions.sum(1), torch.ones(24))


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("cell", ["cfc", "ltc"])
def test_padding_changes_nothing(cell: Any, readout: Any) -> None:
    series = small_xor().splits.test
    assert len({len(s.values) for s in series}) > 3
    model = LiquidClassifier(cell=cell, units=5, readout=readout, input_size=1, num_classes=2).eval()
    with torch.no_grad():
        together = model(whole(series))
        alone = torch.cat([model(whole([s])) for s in series])
    assert torch.allclose(together, alone, atol=1e-6)


def test_noise_and_smoothing_are_for_training_only() -> None:
    torch.manual_seed(0)
    model = LiquidClassifier(units=5, input_size=1, num_classes=2, input_noise=0.5, label_smoothing=0.2)
    batch = whole(small_xor().splits.test)
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    first, second = (float(model.training_step(batch, 0).detach()) for _ in range(2))
    assert first != second
    outputs = model.eval()(batch).detach()
    assert float(model.loss(outputs, batch)) == float(F.cross_entropy(outputs, batch.targets))
    model.train()
    smooth = F.cross_entropy(outputs, batch.targets, label_smoothing=0.2)
    assert float(model.loss(outputs, batch)) == float(smooth)


def test_a_wiring_is_built_from_its_name() -> None:
    spec = {"type": "AutoNCP", "units": 12, "output_size": 3}
    model = LiquidClassifier(cell="ltc", wiring=spec, input_size=1, num_classes=2)
    model.configure_model()
    assert model.network is not None
    assert model.network.linear.in_features == 3
    assert model.network.layer.state_size == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "gru"}, r"^model\.cell=gru: must be one of cfc, ltc$"),
        ({"readout": "first"}, r"^model\.readout=first: must be one of last, mean$"),
        ({"units": 0}, r"^model: units=0 "),
        (
            {"cell_options": {"size": 3}},
            r"^model\.cell_options=\{'size': 3\}: .*unexpected keyword argument 'size'",
        ),
        ({"wiring": {"type": "Ring"}}, r"^model\.wiring\.type=Ring: must be one of AutoNCP, "),
        ({"wiring": {"type": "AutoNCP", "units": 9}}, r"^model\.wiring=.*missing .*'output_size'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LiquidClassifier(input_size=1, num_classes=2, **options).configure_model()


def test_a_model_meets_data_of_other_sizes() -> None:
    model = LiquidClassifier(units=4, input_size=6, num_classes=4)
    with pytest.raises(InputError, match=r"^model\.input_size=6: the data has 1 channels; use the data that"):
        trainer().test(model, small_xor(), verbose=False)
    with pytest.raises(InputError, match=r"^model\.num_classes=4: the data has 2 classes"):
        trainer().test(LiquidClassifier(units=4, input_size=1, num_classes=4), small_xor(), verbose=False)
    with pytest.raises(InputError, match="the data has no classes; use LiquidRegressor"):
        trainer().fit(LiquidClassifier(units=4), ArchiveDataModule("Covid3Month"))


def test_sizes_that_nobody_knows_are_asked_for() -> None:
    with pytest.raises(
        InputError, match="LiquidClassifier: sizes are not known; pass input_size and num_classes"
    ):
        trainer().test(LiquidClassifier(units=4), [whole(small_xor().splits.test)])


def test_the_regressor_learns_and_predicts_in_the_unit_of_the_data() -> None:
    data: SeriesDataModule = ArchiveDataModule("Covid3Month")
    model = LiquidRegressor(units=8, readout="mean")
    run = trainer(max_epochs=2)
    run.fit(model, data)
    assert (float(model.target_mean), float(model.target_std)) == pytest.approx(data.target_scale)
    (tested,) = run.test(model, data, verbose=False)
    predictions = torch.cat(run.predict(model, data))  # type: ignore[arg-type]
    targets = whole(data.splits.test).targets
    error = predictions - targets
    assert tested["test_mae"] == pytest.approx(float(error.abs().mean()), rel=1e-5)
    assert tested["test_rmse"] == pytest.approx(float((error**2).mean().sqrt()), rel=1e-5)
    assert tested["test_loss"] == pytest.approx(
        float((error**2).mean()) / data.target_scale[1] ** 2, rel=1e-4
    )


def test_the_learning_rate_rises_and_falls_by_step() -> None:
    factor = warmup_cosine(100, 0.1)
    assert [factor(s) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert [factor(s) for s in (10, 55, 100, 200)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert warmup_cosine(float("inf"), 0.1)(5) == 1.0


def test_the_schedule_spans_the_run() -> None:
    model = LiquidClassifier(units=4, learning_rate=0.01, warmup=0.5)
    run = trainer(max_epochs=2)
    run.fit(model, small_xor())
    scheduler: Any = model.lr_schedulers()
    assert run.global_step == 6
    assert scheduler.get_last_lr() == pytest.approx([0.0], abs=1e-12)
