import sys
from pathlib import Path

import pytest
import torch

from liquid_train.__main__ import main

INTERRUPT = """
import os, signal
from lightning.pytorch import Callback

class InterruptAt(Callback):
    '''Ctrl-C in the middle of a training step.'''

    def __init__(self, step: int, times: int = 1):
        self.step = step
        self.times = times

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
"""

FIT = [
    "fit",
    "--seed_everything=3",
    "--model=LiquidClassifier",
    "--model.units=8",
    "--model.input_noise=0.3",
    "--model.cell_options={backbone_dropout: 0.2}",
    "--data=ArchiveDataModule",
    "--data.dataset=BasicMotions",
    "--data.batch_size=8",
    "--telemetry.enabled=false",
    "--trainer.max_epochs=3",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


@pytest.fixture(autouse=True)
def _interrupt_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupt_at.py").write_text(INTERRUPT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "interrupt_at", raising=False)


def fit(folder: Path, *options: str) -> int:
    return main([*FIT, f"--checkpoint.dirpath={folder}", *options])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert fit(folder) == 0
    return folder / "last.ckpt"


@pytest.mark.parametrize("step", [2, 5, 9], ids=["first epoch", "start of an epoch", "last step of an epoch"])
def test_a_resumed_run_ends_with_the_same_bits(step: int, uninterrupted: Path, tmp_path: Path) -> None:
    stop = ["--trainer.callbacks=interrupt_at.InterruptAt", f"--trainer.callbacks.step={step}"]
    assert fit(tmp_path / "stopped", *stop) == 130
    stopped = torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)
    assert (stopped["epoch"], stopped["global_step"]) == (step // 5, step + 1)

    assert fit(tmp_path / "resumed", f"--ckpt_path={tmp_path / 'stopped' / 'last.ckpt'}") == 0
    resumed = torch.load(tmp_path / "resumed" / "last.ckpt", weights_only=True)
    expected = torch.load(uninterrupted, weights_only=True)
    assert resumed["global_step"] == expected["global_step"] == 15
    assert resumed["state_dict"].keys() == expected["state_dict"].keys()
    for name, weights in expected["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weights), name
    assert resumed["optimizer_states"][0]["state"][0]["exp_avg"].equal(
        expected["optimizer_states"][0]["state"][0]["exp_avg"]
    )


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
def test_resuming_at_the_end_of_an_epoch_gives_the_same_bits(uninterrupted: Path, tmp_path: Path) -> None:
    early = "--trainer.callbacks=EarlyStopping"
    options = ["--trainer.callbacks.monitor=val_loss", "--trainer.callbacks.stopping_threshold=100"]
    assert fit(tmp_path / "stopped", early, *options) == 0
    assert torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)["global_step"] == 5
    assert fit(tmp_path / "resumed", f"--ckpt_path={tmp_path / 'stopped' / 'last.ckpt'}") == 0
    resumed = torch.load(tmp_path / "resumed" / "last.ckpt", weights_only=True)
    expected = torch.load(uninterrupted, weights_only=True)
    for name, weights in expected["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weights), name


def test_a_second_ctrl_c_stops_inside_the_step_and_keeps_the_checkpoint_of_the_epoch(tmp_path: Path) -> None:
    stop = ["--trainer.callbacks=interrupt_at.InterruptAt", "--trainer.callbacks.step=7"]
    assert fit(tmp_path / "stopped", *stop, "--trainer.callbacks.times=2") == 130
    kept = torch.load(tmp_path / "stopped" / "last.ckpt", weights_only=True)
    assert (kept["epoch"], kept["global_step"]) == (0, 5)


def test_of_equally_good_checkpoints_the_newest_is_best(tmp_path: Path) -> None:
    assert fit(tmp_path / "flat", "--model.learning_rate=0") == 0
    assert torch.load(tmp_path / "flat" / "best.ckpt", weights_only=True)["epoch"] == 2


@pytest.mark.parametrize(
    ("option", "kept"), [("--model.units=4", "8"), ("--model.init_args.learning_rate=0.5", "0.003")]
)
def test_an_option_that_the_checkpoint_overrules_is_told(
    option: str, kept: str, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path, option, f"--ckpt_path={uninterrupted}", "--trainer.max_epochs=4") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    name, _, value = option.removeprefix("--model.").removeprefix("init_args.").partition("=")
    assert f"model.{name}={value}: the checkpoint {uninterrupted} was made with {kept}" in line
    assert not list(tmp_path.glob("*.ckpt"))


def test_weights_that_do_not_fit_are_told(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(uninterrupted, weights_only=True)
    del checkpoint["state_dict"][next(iter(checkpoint["state_dict"]))]
    torch.save(checkpoint, tmp_path / "less.ckpt")
    assert fit(tmp_path / "run", f"--ckpt_path={tmp_path / 'less.ckpt'}", "--trainer.max_epochs=4") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "less.ckpt: does not fit this model: Error(s) in loading state_dict" in line
