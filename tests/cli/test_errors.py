from pathlib import Path

import pytest

from liquid_train.__main__ import main

FIT = [
    "fit",
    "--model=LiquidClassifier",
    "--model.units=4",
    "--data=XorDataModule",
    "--data.train_size=40",
    "--telemetry.enabled=false",
    "--trainer.fast_dev_run=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'expected "subcommand" to be one of {fit,validate,test,predict}'),
        (["fitt"], "invalid choice: 'fitt' (choose from"),
        (["fit"], "the following arguments are required: fit.model; see liquid-train --help"),
        (["fit", "--config", "none.yaml"], "config: File does not exist: "),
        ([*FIT, "--trainer.nope=1"], "unrecognized arguments: --trainer.nope=1"),
        ([*FIT, "--trainer.max_epochs=abc"], "trainer.max_epochs: Expected int, given: abc"),
        (
            [*FIT, "--trainer.logger=TensorBoardLogger"],
            "trainer.logger: the following arguments are required: save_dir",
        ),
        ([*FIT, "--model.cell=gru"], "model: cell: Expected Literal['cfc', 'ltc']. Got value: gru"),
        ([*FIT, "--model.nope=3"], "model: Option 'nope' is not accepted"),
        ([*FIT, "--model.units=0"], "model: units=0 must be a whole number of at least 1"),
        ([*FIT, "--model.input_size=5"], "model.input_size=5: the data has 1 channels; use the data that"),
        ([*FIT, "--data.batch_size=0"], "data.batch_size=0: must be at least 1"),
        ([*FIT, "--data=Foo"], "data: no class is called Foo"),
        (
            [*FIT, "--data=liquid_train.data.Foo"],
            "'liquid_train.data.Foo': module 'liquid_train.data' has no attribute 'Foo'",
        ),
        (
            [
                *FIT,
                "--trainer.fast_dev_run=false",
                "--trainer.max_epochs=1",
                "--checkpoint.dirpath=/dev/null/run/checkpoints",
            ],
            "/dev/null/run: the run's directory cannot be made",
        ),
        (
            [*FIT, "--data=ArchiveDataModule", "--data.dataset=BasicMotion"],
            "data.dataset=BasicMotion: not a dataset of the UCR/UEA archive, did you mean BasicMotions;",
        ),
        (
            [*FIT, "--data=ArchiveDataModule", "--data.dataset=BasicMotions", "--data.drop_rate=1.5"],
            "data.drop_rate=1.5: must be at least 0 and below 1",
        ),
        (
            [*FIT, "--telemetry.enabled=true", "--telemetry.port=99999"],
            "telemetry: port=99999: must be 0 (a free",
        ),
        (
            [*FIT, "--telemetry.enabled=true", "--telemetry.otlp_endpoint=localhost:4318"],
            "telemetry: otlp_endpoint='localhost:4318': must be a URL such as",
        ),
        ([*FIT, "--ckpt_path=none.ckpt"], "ckpt_path=none.ckpt: there is no such file"),
    ],
)
def test_a_mistake_gets_one_line_and_a_non_zero_exit(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("liquid-train: error:")]
    assert message in line
    assert error.splitlines()[-1] == line
    assert "Traceback" not in error


def test_a_broken_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "half.ckpt").write_bytes(b"PK half")
    assert main([*FIT, f"--ckpt_path={tmp_path / 'half.ckpt'}"]) == 1
    assert "half.ckpt: is not a whole checkpoint" in capsys.readouterr().err


def test_an_exception_of_the_users_model_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_model.py").write_text(
        "from liquid_train import LiquidClassifier\n"
        "class TheirModel(LiquidClassifier):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        raise ZeroDivisionError('their bug')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError, match="their bug"):
        main([a.replace("LiquidClassifier", "their_model.TheirModel") for a in FIT])


@pytest.mark.parametrize(
    "arguments", [["--help"], ["fit", "--help"], ["fit", "--model.help", "LiquidClassifier"]]
)
def test_help_is_a_success_and_teaches(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    if arguments == ["--help"]:
        assert "\n  liquid-train fit --config configs/japanese_vowels_cfc.yaml\n" in shown
        assert "make sure you never run on your" not in shown
    if arguments == ["fit", "--help"]:
        assert shown.startswith("usage: liquid-train [options] fit --config FILE [--OPTION VALUE ...]\n\n")
        assert all(
            option in shown for option in ("--telemetry.enabled", "--checkpoint.monitor", "--test_after_fit")
        )
