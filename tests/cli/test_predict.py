from pathlib import Path

import numpy as np
import pytest
import torch

from liquid_train.__main__ import main
from liquid_train.cli.predictions import write_predictions

RUN = [
    "--model=LiquidClassifier",
    "--model.units=4",
    "--data=XorDataModule",
    "--data.train_size=40",
    "--data.val_size=10",
    "--data.test_size=150",
    "--telemetry.enabled=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


def test_a_checkpoint_is_tested_validated_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *RUN, "--trainer.max_epochs=1", "--checkpoint.dirpath=run/checkpoints"]) == 0
    best = "--ckpt_path=run/checkpoints/best.ckpt"
    assert main(["validate", *RUN, best]) == 0
    assert main(["test", *RUN, best]) == 0
    assert "untrained" not in capsys.readouterr().err
    assert main(["predict", *RUN, best, "--checkpoint.dirpath=run/checkpoints"]) == 0
    assert capsys.readouterr().out == "predictions  run/predictions.csv\n"
    lines = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    assert lines[0] == "even,odd"
    table = np.loadtxt(lines[1:], delimiter=",")
    assert table.shape == (150, 2)
    assert np.allclose(table.sum(1), 1, atol=1e-5)


def test_a_model_without_a_checkpoint_is_said_to_be_untrained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", *RUN]) == 0
    assert "no --ckpt_path is given, so the model is used untrained\n" in capsys.readouterr().err


def test_a_checkpoint_refuses_data_of_another_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["fit", *RUN, "--trainer.max_epochs=1", f"--checkpoint.dirpath={tmp_path / 'checkpoints'}"]) == 0
    )
    other = ["--data=ArchiveDataModule", "--data.dataset=BasicMotions", "--telemetry.enabled=false"]
    checkpoint = f"--ckpt_path={tmp_path / 'checkpoints' / 'best.ckpt'}"
    assert main(["test", "--model=LiquidClassifier", *other, checkpoint]) == 1
    assert "model.input_size=1: the data has 6 channels" in capsys.readouterr().err


def test_values_are_one_column_and_other_things_no_table(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    assert write_predictions([torch.tensor([1.5, 2]), torch.tensor([3.0])], path, None)
    assert path.read_text() == "y0\n1.5\n2\n3\n"
    assert not write_predictions([{"a": 1}], tmp_path / "other.csv", None)
    assert not (tmp_path / "other.csv").exists()
