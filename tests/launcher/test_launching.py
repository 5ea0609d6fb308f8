"""Names, options, and what the launcher does not import."""

import subprocess
import sys

import pytest

from liquid_telemetry.launcher.naming import name_of
from liquid_train.__main__ import main


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python train.py", "train.py"),
        ("/usr/bin/python3.12 -u -W ignore -X dev src/train.py a.py", "train.py"),
        ("python -m pkg.train --lr 1", "pkg.train"),
        ("python -Im pkg", "pkg"),
        ("python -mpkg", "pkg"),
        ("python -c pass", "python"),
        ("python", "python"),
        ("torchrun --standalone --nproc-per-node 2 train.py --x other.py", "train.py"),
        ("liquid-train fit --config configs/a.yaml", "liquid-train"),
        ("./train.py", "train.py"),
        ("bash run.sh", "bash"),
    ],
)
def test_the_name_of_a_command(command, name):
    assert name_of(command.split()) == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run: no command; write it after --, as in liquid-train run -- python train.py"),
        (["--"], "run: no command; write it after --, as in liquid-train run -- python train.py"),
        (["--linger", "-1", "--", "true"], "'-1' must be a number of seconds, 0 or more"),
        (["--linger=nan", "--", "true"], "'nan' must be a number of seconds, 0 or more"),
        (["--port", "70000", "--", "true"], "'70000' must be 0 (a free one) to 65535"),
        (["--nope", "--", "true"], "run: unrecognized arguments: --nope; see liquid-train run --help"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert main(["run", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("liquid-train: error: run: ")
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--", "a", "--", "--help"], ["a", "--", "--help"]),
        (["--dir", "x", "a", "--help", "--", "b"], ["a", "--help", "--", "b"]),
        (["a", "--linger", "x"], ["a", "--linger", "x"]),
    ],
)
def test_what_belongs_to_the_command(arguments, command, monkeypatch):
    ran = []
    monkeypatch.setattr(
        "liquid_telemetry.launcher.launch", lambda command, **options: ran.append(command) or 0
    )
    assert main(["run", *arguments]) == 0
    assert ran == [command]


def test_help_teaches(capsys):
    assert main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: liquid-train run [options] -- COMMAND [ARGUMENT ...]\n")
    assert all(
        word in shown for word in ("--model-name", "--linger", "--host", "torchrun", "137", "127", "126")
    )


def test_modules_it_imports():
    """Small and quick: the standard library only."""
    code = "import sys, liquid_train.__main__, liquid_telemetry.launcher; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout
    top = {name.split(".")[0] for name in set(output.split()) - set(bare.split())}
    assert {name for name in top if name not in sys.stdlib_module_names} <= {
        *("__mp_main__", "liquid_train", "liquid_telemetry")
    }
