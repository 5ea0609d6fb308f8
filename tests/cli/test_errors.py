import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

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
        ([], "a subcommand is missing: there are fit, validate, test, predict, doctor, run, clean, logs, "),
        (["fitt"], "'fitt' is no subcommand: did you mean fit? there are fit, validate, "),
        (["log"], "did you mean logs? there are"),
        ([*FIT, "--model.learning_rate=-1"], "learning_rate=-1.0 must be a number of at least 0"),
        ([*FIT, "--model.weight_decay=.nan"], "weight_decay=nan must be a number of at least 0"),
        ([*FIT, "--model.warmup=2"], "warmup=2.0 must be a number between 0 and 1"),
        ([*FIT, "--model.input_noise=.inf"], "input_noise=inf must be a number of at least 0"),
        ([*FIT, "--model=LiquidRegressor"], "the data has classes and no values; use LiquidClassifier"),
        ([*FIT, "--trainer.max_epochs=-5"], "`max_epochs` must be a non-negative integer or -1"),
        ([*FIT, "--trainer.devices=0"], "`Trainer(devices='0')` value is not a valid input"),
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


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"PK half"), "is not a whole checkpoint"),
        (_zip, "is not a whole checkpoint"),
        (
            lambda path: torch.save({"a": 1}, path),
            "is no checkpoint of Lightning's with pytorch-lightning_version",
        ),
        (lambda path: torch.save([1, 2], path), "is no checkpoint of Lightning's"),
        (lambda path: path.mkdir(), "is a folder without a checkpoint in it; name the file"),
    ],
    ids=["half", "zip", "dictionary", "list", "folder"],
)
@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_what_is_no_checkpoint_is_named(
    subcommand: str,
    write: Callable[[Path], object],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / "given.ckpt")
    assert main([subcommand, *FIT[1:], f"--ckpt_path={tmp_path / 'given.ckpt'}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"ckpt_path={tmp_path / 'given.ckpt'}: {message}" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; give a mapping of options"),
        (b"- a\n", "holds a list; give a mapping of options"),
        (b"a: [1\nb: 2\n", "is not YAML: while parsing a flow sequence"),
        (b"\xff\xfe\x00a", "is not UTF-8 text"),
    ],
    ids=["empty", "list", "syntax", "binary"],
)
@pytest.mark.parametrize("form", ["--config={}", "-c {}", "--config {}"])
def test_a_broken_config_is_named(
    form: str, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_bytes(content)
    assert main(["fit", *form.format(tmp_path / "broken.yaml").split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"config={tmp_path / 'broken.yaml'}: {message}" in line


def test_a_monitor_that_nothing_logs_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--trainer.fast_dev_run=false", "--trainer.max_epochs=1", "--checkpoint.monitor=nope"]
    assert main([*FIT, *options, f"--checkpoint.dirpath={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert "ModelCheckpoint(monitor='nope')` could not find the monitored key" in error.splitlines()[-1]
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "options",
    [
        ["--telemetry.enabled=true", "--telemetry.metrics=false", "--telemetry.dir=/dev/null/runs"],
        ["--checkpoint.dirpath=/dev/null/runs/checkpoints"],
    ],
    ids=["telemetry", "checkpoints"],
)
def test_a_folder_that_cannot_be_made_is_told_before_predicting(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", *FIT[1:], "--trainer.fast_dev_run=false", *options]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "/dev/null/runs: the run's directory cannot be made" in said.err.splitlines()[-1]
    assert "Predicting" not in said.out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"liquid-train {version('liquid-train')}\n"


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
