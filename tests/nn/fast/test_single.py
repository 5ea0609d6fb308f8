"""One sequence without kernels runs in NumPy."""

import warnings

import pytest
import torch
from ncps.wirings import AutoNCP

from liquid_train.nn import LTC, CfC
from liquid_train.nn.fast import cfc_steps, ltc_steps
from liquid_train.nn.native.library import without_kernels

BUILDS = {
    **{
        f"{mode}-{layers}-{activation}": lambda mode=mode, layers=layers, activation=activation: CfC(
            3, 9, mode=mode, backbone_layers=layers, activation=activation, backbone_units=20
        )
        for mode in ("default", "no_gate", "pure")
        for layers, activation in ((0, "relu"), (1, "lecun_tanh"), (2, "tanh"), (3, "relu"))
    },
    "wired": lambda: CfC(3, AutoNCP(30, 7)),
    "strict": lambda: CfC(3, AutoNCP(30, 7), strict_wiring=True),
    "wired pure": lambda: CfC(3, AutoNCP(30, 7), mode="pure"),
    "LTC": lambda: LTC(3, 9),
    "LTC wired": lambda: LTC(3, AutoNCP(30, 7)),
}


@pytest.fixture(autouse=True)
def only_numpy(monkeypatch):
    monkeypatch.setattr(cfc_steps, "run_steps", None)
    monkeypatch.setattr(ltc_steps, "run_steps", None)
    with without_kernels():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spans", ["none", "number", "irregular"])
@pytest.mark.parametrize("name", BUILDS)
def test_as_the_plain_loop(name, spans, dtype):
    layer = BUILDS[name]().to(dtype)
    x, hx = torch.randn(1, 7, 3, dtype=dtype), torch.randn(1, layer.state_size, dtype=dtype)
    times = {"none": None, "number": 0.7, "irregular": torch.rand(1, 7, dtype=dtype) * 2}[spans]
    results = []
    for fast in (True, False):
        layer.fast = fast
        with torch.no_grad():
            results.append(layer(x, hx, times))
    torch.testing.assert_close(*results, rtol=0, atol=5e-6 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("name", ["default-1-lecun_tanh", "pure-1-lecun_tanh", "wired", "LTC"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_numbers_that_overflow_warn_no_one(name, value):
    layer = BUILDS[name]()
    x = torch.zeros(1, 4, 3)
    x[0, 1] = value
    results = []
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        for fast in (True, False):
            layer.fast = fast
            results.append(layer(x)[0])
    torch.testing.assert_close(*results, equal_nan=True)


def test_gradients_of_an_ltc(gradients):
    layer, x = LTC(3, AutoNCP(30, 7)), torch.randn(1, 5, 3)
    found = []
    for fast in (True, False):
        layer.fast = fast
        found.append(gradients(layer(x), layer))
    for name, expected in found[1].items():
        torch.testing.assert_close(found[0][name], expected, rtol=1e-4, atol=1e-6)


def test_weights_that_need_gradients_get_them():
    """Only what autograd does not record runs in NumPy."""
    layer = CfC(3, 9).requires_grad_(False)
    with pytest.raises(TypeError):  # the loop in tensor operations, taken away above
        layer(torch.randn(1, 5, 3, requires_grad=True))
    assert not layer(torch.randn(1, 5, 3))[0].requires_grad


@pytest.mark.parametrize(
    "build", [lambda: CfC(3, 128, backbone_units=256), lambda: LTC(3, 64), lambda: LTC(3, AutoNCP(128, 4))]
)
def test_larger_cells_do_not(build):
    """To prepare them, or to multiply all of their zeros, would take longer than PyTorch."""
    layer = build()
    with torch.no_grad(), pytest.raises(TypeError):
        layer(torch.randn(1, 5, 3))
