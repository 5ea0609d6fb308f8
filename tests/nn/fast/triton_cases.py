"""The Triton kernels on a GPU, or on a CPU in Triton's interpreter: ``test_triton.py`` runs this file by itself."""

import logging

import pytest
import torch
from ncps.wirings import AutoNCP, FullyConnected
from torch.utils._python_dispatch import TorchDispatchMode

from liquid_train.nn import LTC, CfC
from liquid_train.nn.gpu import choice
from liquid_train.nn.native import library


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture
def device(monkeypatch):
    """Where the kernels run; without those in C++."""
    forget()
    monkeypatch.setattr(library._once, "asked", True)
    monkeypatch.setattr(library._once, "library", None)
    yield torch.device("cuda" if torch.cuda.is_available() else "cpu")
    forget()


def forget():
    choice._cfc_is_right.cache_clear()
    choice._ltc_is_right.cache_clear()


@pytest.fixture
def ran(device, monkeypatch):
    """The names of the kernels that ran."""
    from liquid_train.nn.gpu import cfc_steps, ltc_steps

    names = Names()
    for kind, module in (("cfc", cfc_steps.cfc_kernels), ("ltc", ltc_steps.ltc_kernels)):
        for direction in ("forward", "backward"):
            kernel = Named(f"{kind} {direction}", getattr(module, direction), names)
            monkeypatch.setattr(module, direction, kernel)
    return names


class Names(list):
    """Of kernels that ran, with the precision of each one's products."""

    def __init__(self):
        super().__init__()
        self.precisions = []


class Named:
    def __init__(self, name, kernel, names):
        self.name, self.kernel, self.names = name, kernel, names

    def __getitem__(self, grid):
        self.names.append(self.name)
        launch = self.kernel[grid]

        def run(*arguments, **constants):
            self.names.precisions.append(constants.get("PRECISION"))
            return launch(*arguments, **constants)

        return run


def inputs(layer, B, T, spans, device):
    given = {
        "x": torch.randn(B, T, layer.input_size),
        "hx": torch.randn(B, layer.state_size) * 0.5,
        "spans": {"none": None, "one": torch.tensor(0.4), "each": torch.rand(B, T) * 2}[spans],
    }
    return {name: value if value is None else value.to(device) for name, value in given.items()}


@pytest.mark.parametrize("spans", ["none", slow("one"), "each"])
@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("mode", ["default", "pure", slow("no_gate")])
def test_cfc(mode, layers, spans, device, ran, assert_equal_paths):
    layer = CfC(3, 37, mode=mode, backbone_layers=layers, backbone_units=70).to(device)
    assert_equal_paths(layer, inputs(layer, 6, 3, spans, device))
    # Once to compare them, once for the layer.
    assert ran == ["cfc forward", "cfc backward"] * 2


@pytest.mark.parametrize("activation", ["silu", *map(slow, ("relu", "tanh", "gelu"))])
def test_activations(activation, device, ran, assert_equal_paths):
    layer = CfC(3, 9, activation=activation, backbone_units=20).to(device)
    assert_equal_paths(layer, inputs(layer, 2, 3, "each", device))
    assert ran == ["cfc forward", "cfc backward"] * 2


def test_wired_cfc(device, ran, assert_equal_paths):
    layer = CfC(3, AutoNCP(20, 4)).to(device)
    assert_equal_paths(layer, inputs(layer, 3, 4, "each", device))
    assert ran.count("cfc forward") == 1 + 3


@pytest.mark.parametrize("spans", [slow("none"), slow("one"), "each"])
def test_ltc(spans, device, ran, assert_equal_paths):
    layer = LTC(3, FullyConnected(34, 5), ode_unfolds=2).to(device)
    assert_equal_paths(layer, inputs(layer, 5, 2, spans, device))
    assert ran == ["ltc forward", "ltc backward"] * 2


@pytest.mark.slow
def test_large_batches_have_tiles_of_their_own(device, ran, assert_equal_paths):
    layer = CfC(2, 5, backbone_units=8).to(device)
    assert_equal_paths(layer, inputs(layer, 530, 2, "none", device))
    assert ran == ["cfc forward", "cfc backward"] * 2


@pytest.mark.parametrize(("asked", "expected"), [("highest", "ieee"), ("high", "tf32")])
def test_products_are_as_pytorch_may_take_its_own(asked, expected, device, ran, caplog):
    torch.set_float32_matmul_precision(asked)
    try:
        layer = CfC(3, 9, fast=True).to(device)
        layer(torch.randn(2, 3, 3, device=device))[0].sum().backward()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert ran.precisions == [expected] * 4
    assert not caplog.records


class Operations(TorchDispatchMode):
    """Count what a device would be asked to do."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += 1
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
def test_longer_sequences_take_no_more_launches(kind, device, ran):
    layer = {"CfC": CfC(2, 5), "LTC": LTC(2, FullyConnected(20, 1), ode_unfolds=2)}[kind].to(device)
    counts = []
    # The first call compiles and compares.
    for T in (1, 2, 8):
        x = torch.randn(2, T, 2, device=device)
        with Operations() as operations:
            layer(x)[0].sum().backward()
        counts.append(operations.count)
    assert counts[2] == counts[1]
    assert len(ran) == 2 * 4


@pytest.mark.slow
def test_an_ltc_sums_up_gradients_for_few_programs(device, ran, monkeypatch, assert_equal_paths):
    from liquid_train.nn.gpu import ltc_steps

    monkeypatch.setattr(ltc_steps, "_PROGRAMS", 2)
    layer = LTC(3, FullyConnected(20, 2), ode_unfolds=2).to(device)
    assert_equal_paths(layer, inputs(layer, 18, 2, "each", device))
    assert ran == ["ltc forward", "ltc backward"] * 2 + ["ltc backward"] * 2


def test_inference_keeps_one_step(device, ran):
    layer = CfC(2, 5, backbone_units=8).to(device)
    x = torch.randn(3, 6, 2, device=device)
    with torch.inference_mode():
        fast = layer(x)[0]
    layer.fast = False
    torch.testing.assert_close(fast, layer(x)[0], rtol=0, atol=1e-5)
    assert ran == ["cfc forward", "cfc backward", "cfc forward"]


@pytest.mark.slow
def test_second_derivatives(device, ran):
    layer, x = (
        LTC(2, FullyConnected(20, 1)).to(device),
        torch.randn(2, 2, 2, device=device, requires_grad=True),
    )
    penalties = []
    for fast in ("auto", False):
        layer.fast = fast
        (d_x,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
        penalties.append(torch.autograd.grad(d_x.square().sum(), x)[0])
    assert "ltc forward" in ran
    torch.testing.assert_close(*penalties, rtol=1e-4, atol=1e-6)


def test_more_than_one_backbone_layer_and_double_precision_go_without(device, ran):
    CfC(2, 5, backbone_layers=2).to(device)(torch.randn(2, 3, 2, device=device))
    CfC(2, 5).double().to(device)(torch.randn(2, 3, 2, device=device, dtype=torch.float64))
    assert ran == []


@pytest.mark.parametrize("wrong", ["raises", "other numbers"])
def test_kernels_that_fail_are_not_used(wrong, device, monkeypatch, caplog):
    from liquid_train.nn.gpu import cfc_steps

    run_steps = cfc_steps.run_steps

    def broken(*arguments):
        if wrong == "raises":
            raise RuntimeError("out of resource: shared memory\nRequired: 300000")
        states, *rest = run_steps(*arguments)
        return states + 0.01, *rest

    monkeypatch.setattr(cfc_steps, "run_steps", broken)
    layer, x = CfC(2, 5).to(device), torch.randn(2, 3, 2, device=device)
    with caplog.at_level(logging.WARNING, "liquid_train"):
        results = [layer(x)[0] for _ in range(2)]
    layer.fast = False
    for result in results:
        torch.testing.assert_close(result, layer(x)[0], rtol=0, atol=1e-5)
    reason = {
        "raises": "more slowly: RuntimeError: out of resource: shared memory",
        "other numbers": "default CfC, more slowly: they give other numbers than PyTorch",
    }[wrong]
    (record,) = caplog.records
    assert record.getMessage().endswith(reason)


def test_checking_draws_no_random_numbers(device):
    layer, x = CfC(2, 5).to(device), torch.randn(2, 3, 2, device=device)
    before = torch.get_rng_state()
    layer(x)
    assert torch.equal(torch.get_rng_state(), before)
