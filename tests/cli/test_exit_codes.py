"""Real processes, real signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from liquid_train.__main__ import main

FIT = [
    "--model=LiquidClassifier",
    "--model.units=4",
    "--data=XorDataModule",
    "--data.train_size=2000",
    "--data.batch_size=4",
    "--telemetry.enabled=false",
    "--torch_threads=1",
    "--trainer.max_epochs=1000",
    "--checkpoint.every_n_train_steps=5",
]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "LIQUID_TELEMETRY_SPOOL": str(folder / "spool")}
    command = [sys.executable, "-m", "liquid_train", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **streams)  # type: ignore[call-overload, no-any-return]


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {path} after {seconds} s"
        time.sleep(0.05)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_keeps_its_last_checkpoint(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    with start(tmp_path, "fit", *FIT, "--checkpoint.dirpath=checkpoints") as process:
        last = tmp_path / "checkpoints" / "last.ckpt"
        wait_for(last, process)
        process.send_signal(sent)
        said, error = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in error
    assert said.endswith("go on with  --ckpt_path checkpoints/last.ckpt\n")
    assert torch.load(last, weights_only=True)["global_step"] >= 5


def test_a_mistake_is_one_line_on_stderr(tmp_path: Path) -> None:
    with start(tmp_path, "fit", *FIT, "--data.max_bits=0") as process:
        out, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out == ""
    mine = [line for line in error.splitlines() if "Seed set" not in line]
    assert mine == ["liquid-train: error: data.min_bits=2: must be at least 1 and at most data.max_bits=0"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "hook", ["__init__", "setup", "configure_optimizers", "on_fit_end", "validation_step"]
)
def test_sigterm_ends_with_143_wherever_it_comes(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning has a handler only while it trains; before and after, the signal would kill."""
    (tmp_path / f"told_in_{hook}.py").write_text(
        "import os, signal\n"
        "from liquid_train import LiquidClassifier\n"
        "class Told(LiquidClassifier):\n"
        f"    def {hook}(self, *args, **kwargs):\n"
        f"        result = super().{hook}(*args, **kwargs)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return result\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    options = [option for option in FIT if not option.startswith(("--model=", "--trainer", "--checkpoint"))]
    trial = ["--trainer.fast_dev_run=2", "--trainer.enable_progress_bar=false"]
    assert main(["fit", f"--model=told_in_{hook}.Told", *options, *trial]) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert "Traceback" not in capsys.readouterr().err


def test_sigterm_still_ends_a_forked_process() -> None:
    code = (
        "import os, signal\n"
        "from liquid_train.cli.terminate import exit_on_sigterm\n"
        "with exit_on_sigterm():\n"
        "    child = os.fork()\n"
        "    if child == 0: os.kill(os.getpid(), signal.SIGTERM); os._exit(1)\n"
        "    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 143
