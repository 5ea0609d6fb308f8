"""The Triton kernels give the plain loop's numbers, and compile for GPUs where there is none."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def triton():
    if sys.platform != "linux":
        pytest.skip("Triton runs on Linux only")
    if importlib.util.find_spec("triton") is None:
        assert not os.environ.get("CI"), "Triton is not installed"
        pytest.skip("Triton is not installed")


@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_cases(marked):
    """In a process of their own: Triton must know of its interpreter when it is first imported."""
    place = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        marked,
        str(HERE / "triton_cases.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **place}, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(
    "target", [pytest.param(75, marks=pytest.mark.slow), 80, pytest.param(90, marks=pytest.mark.slow)]
)
def test_they_compile_for_gpus(target):
    """Triton's compiler needs no GPU: shared memory is within what any of them has."""
    script = HERE / "compile_kernels.py"
    done = subprocess.run([sys.executable, script, str(target)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shared = [int(line) for line in done.stdout.split()]
    assert len(shared) == 39
    assert max(shared) <= 20 * 1024
