"""The comparison that kernels pass before they are used, and how precise they are to be."""

import pytest
import torch

from liquid_train.nn.fast.check import agree, numbers
from liquid_train.nn.gpu.precision import precision


def square(x):
    return x.mm(x)


def test_what_kernels_are_compared_with_is_exact():
    """PyTorch may take its own products of float32 numbers in TF32 or bfloat16."""
    seen = []

    def plain(x):
        seen.append(x.dtype)
        return square(x)

    assert agree(square, plain, [numbers(4, 4)])
    assert seen == [torch.float64]


@pytest.mark.parametrize("error", [0.5, 2.0])
def test_tolerance(error):
    def kernels(x):
        return square(x) + error * 1e-2

    assert agree(kernels, square, [numbers(4, 4)], tolerance=1e-2) == (error < 1)


@pytest.fixture
def matmul_precision():
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(("asked", "expected"), [("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")])
def test_precision_is_pytorchs(asked, expected, matmul_precision):
    matmul_precision(asked)
    assert precision() == expected


@pytest.mark.usefixtures("matmul_precision")
def test_precision_by_the_older_flag():
    assert precision() == "ieee"
    torch.backends.cuda.matmul.allow_tf32 = True
    assert precision() == "tf32"
