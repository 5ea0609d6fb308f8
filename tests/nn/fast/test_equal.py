"""The fast paths give the plain loop's outputs, states and gradients, by name, over a grid."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ncps.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring

from liquid_train.nn import LTC, CfC

MODES = ("default", "pure", "no_gate")
SPANS = ("none", "number", "irregular")
SIZES = [(1, 1), (3, 7), (33, 4), (70, 2)]


class Isolated(Wiring):
    """Two neurons that no synapse reaches, one that none leaves."""

    def __init__(self):
        super().__init__(5)
        self.set_output_dim(2)

    def build(self, input_dim):
        super().build(input_dim)
        self.add_sensory_synapse(0, 0, 1)
        self.add_synapse(0, 1, -1)
        self.add_synapse(1, 1, 1)
        self.add_synapse(1, 4, 1)

    def get_type_of_neuron(self, neuron):
        return "motor" if neuron < 2 else "inter"


WIRINGS = {
    "AutoNCP": lambda: AutoNCP(30, 7),
    "NCP": lambda: NCP(5, 4, 2, 3, 2, 3, 2),
    "no_self": lambda: FullyConnected(6, self_connections=False),
    "Random": lambda: Random(17, sparsity_level=0.8),
    "Isolated": Isolated,
}


def inputs(layer, B, T, spans, dtype=torch.float32):
    irregular = torch.rand(B, T, dtype=dtype) * 2
    irregular[0, T // 2] = 0.0
    return {
        "x": torch.randn(B, T, layer.input_size, dtype=dtype),
        "hx": torch.randn(B, layer.state_size, dtype=dtype) * 0.5,
        "spans": {"none": None, "number": 0.7, "irregular": irregular}[spans],
    }


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("units", [1, 16, 37])
@pytest.mark.parametrize("mode", MODES)
def test_cfc(mode, units, spans, size, backend, assert_equal_paths):
    layer = CfC(3, units, mode=mode, backbone_units=23)
    assert_equal_paths(layer, inputs(layer, *size, spans))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 4)], ids=str)
@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options", [{}, {"activation": "gelu", "backbone_layers": 2}, {"wired": True}], ids=str
)
def test_cfc_without_autograd(options, mode, spans, size, backend):
    """Nothing is kept then: one step's memory serves all."""
    wired = options.get("wired")
    layer = CfC(3, AutoNCP(30, 7), mode=mode) if wired else CfC(3, 16, mode=mode, **options)
    given = inputs(layer, *size, spans).values()
    results = []
    for fast in (True, False):
        layer.fast = fast
        with torch.no_grad():
            results.append(layer(*given))
    torch.testing.assert_close(*results, rtol=0, atol=5e-6)


SATURATED = {
    "LTC": lambda: LTC(3, AutoNCP(32, 4, seed=1)),
    "LTC dense": lambda: LTC(3, 8),
    "CfC": lambda: CfC(3, 8),
    "CfC no_gate": lambda: CfC(3, 8, mode="no_gate"),
    "CfC pure": lambda: CfC(3, 8, mode="pure"),
    "CfC without a backbone": lambda: CfC(3, 8, backbone_layers=0),
}


@pytest.mark.parametrize("large", ["channel", "span"])
@pytest.mark.parametrize("name", SATURATED)
def test_saturated_functions_have_no_slopes(name, large, backend):
    """A slope of 1e-7 where there is none would be magnified by what is large."""
    torch.manual_seed(0)
    layer, x, spans = SATURATED[name](), torch.randn(32, 20, 3), torch.rand(32, 20, 1) + 0.5
    if large == "channel":
        x[..., 0] *= 1000
    else:
        spans[3, 4] = 1e6
    exact = copy.deepcopy(layer).double()
    found, expected = (
        torch.autograd.grad(model(a, timespans=t)[0].square().mean(), [a, *model.parameters()])
        for model, a, t in (
            (layer, x.requires_grad_(), spans),
            (exact, x.detach().double().requires_grad_(), spans.double()),
        )
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).abs().max() <= 3e-5 * theirs.abs().max()


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("activation", ["lecun_tanh", "silu", "relu", "tanh", "gelu"])
@pytest.mark.parametrize("mode", MODES)
def test_backbones(mode, activation, layers, backend, assert_equal_paths):
    layer = CfC(4, 9, mode=mode, activation=activation, backbone_layers=layers, backbone_units=40)
    assert_equal_paths(layer, inputs(layer, 5, 4, "irregular"))


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wiring", ["AutoNCP", "NCP", "no_self", "Random"])
def test_wired_cfc(wiring, mode, spans, strict, backend, assert_equal_paths):
    layer = CfC(3, WIRINGS[wiring](), mode=mode, strict_wiring=strict)
    assert_equal_paths(layer, inputs(layer, 5, 4, spans))


@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("mode", MODES)
def test_more_layers_than_steps(mode, spans, T, backend, assert_equal_paths):
    layer = CfC(3, AutoNCP(30, 7), mode=mode)
    assert_equal_paths(layer, inputs(layer, 5, T, spans))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", [CfC, LTC])
def test_nothing_reaches_the_steps_before(kind, batch, grad, value, backend):
    layer = kind(3, AutoNCP(30, 7))
    x = torch.randn(batch, 6, 3)
    results = []
    for last in (value, 0.0):
        x[0, 4] = last
        with torch.set_grad_enabled(grad):
            results.append(layer(x)[0])
    broken, sound = results
    torch.testing.assert_close(broken[:, :4], sound[:, :4])
    torch.testing.assert_close(broken[1:], sound[1:])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("units", [1, 9, *WIRINGS])
def test_ltc(units, spans, size, backend, assert_equal_paths):
    layer = LTC(3, WIRINGS[units]() if units in WIRINGS else units)
    assert_equal_paths(layer, inputs(layer, *size, spans))


@pytest.mark.parametrize("mapping", ["affine", "linear", None])
@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_ltc_options(implicit, mapping, backend, assert_equal_paths):
    options = {"input_mapping": mapping, "output_mapping": mapping, "ode_unfolds": 3, "epsilon": 1e-2}
    layer = LTC(3, AutoNCP(12, 3), implicit_param_constraints=implicit, **options)
    assert_equal_paths(layer, inputs(layer, 4, 5, "irregular"))


@pytest.mark.parametrize("units", [8, "AutoNCP"])
@pytest.mark.parametrize("kind", [CfC, LTC])
def test_lengths(kind, units, backend, assert_equal_paths):
    layer = kind(3, WIRINGS[units]() if units in WIRINGS else units)
    assert_equal_paths(layer, inputs(layer, 4, 6, "irregular"), lengths=[6, 0, 3, 1])


@pytest.mark.parametrize("build", [CfC, lambda C, units: LTC(C, AutoNCP(units, 3), ode_unfolds=1)])
def test_a_thousand_steps(build, backend, assert_equal_paths):
    layer = build(2, 20)
    assert_equal_paths(layer, inputs(layer, 2, 1000, "none"), tolerance=3e-5)


@pytest.mark.parametrize("batch", [1, 2, 33, 150])
@pytest.mark.parametrize("kind", [CfC, LTC])
def test_threads_share_a_batch(kind, batch, kernels, threads, assert_equal_paths):
    layer = kind(3, AutoNCP(30, 7))
    with threads(3):
        assert_equal_paths(layer, inputs(layer, batch, 5, "irregular"))


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape(data, backend, assert_equal_paths):
    def size(most):
        return data.draw(st.integers(1, most))

    if data.draw(st.booleans()):
        options = {"mode": data.draw(st.sampled_from(MODES)), "backbone_units": size(50)}
        layer = CfC(size(20), size(40), backbone_layers=size(3) - 1, **options)
    else:
        layer = LTC(size(6), size(20), ode_unfolds=size(4))
    assert_equal_paths(layer, inputs(layer, size(40), size(6), data.draw(st.sampled_from(SPANS))))


@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("mode", MODES)
def test_cfc_gradients_by_finite_differences(mode, spans):
    layer = CfC(2, 3, mode=mode, backbone_units=4, fast=True).double()
    check_gradients(layer, spans)


@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("units", [4, "AutoNCP"])
def test_ltc_gradients_by_finite_differences(units, spans):
    layer = LTC(2, AutoNCP(6, 2) if units == "AutoNCP" else units, ode_unfolds=2, fast=True).double()
    check_gradients(layer, spans)


def check_gradients(layer, spans):
    given = inputs(layer, 2, 3, spans, torch.float64)
    leaves = [given["x"], given["hx"], *layer.parameters()]
    if spans == "irregular":
        leaves.append(given["spans"])

    def call(x, hx, *rest):
        return layer(x, hx, rest[-1] if spans == "irregular" else given["spans"])

    torch.autograd.gradcheck(call, [leaf.requires_grad_() for leaf in leaves])


def test_the_plain_loop_is_not_what_is_compared(monkeypatch, backend, assert_equal_paths):
    """A fast path that fell back would pass every test above."""
    monkeypatch.setattr("liquid_train.nn.layer.unroll", None)
    layer = CfC(3, 4, fast=True)
    layer(torch.randn(2, 3, 3))
    layer.fast = False
    with pytest.raises(TypeError):
        layer(torch.randn(2, 3, 3))


def test_the_kernels_are_what_runs(monkeypatch, kernels):
    monkeypatch.setattr("liquid_train.nn.fast.serve.run_cfc", None)
    monkeypatch.setattr("liquid_train.nn.fast.serve.run_ltc", None)
    for layer in (CfC(3, 4), CfC(3, AutoNCP(12, 3)), LTC(3, 4)):
        layer(torch.randn(2, 3, 3))


@pytest.mark.parametrize("kind", [CfC, LTC])
def test_windows_that_share_memory(kind, backend):
    layer = kind(8, 5)
    found = []
    for fast in (True, False):
        layer.fast = fast
        series = torch.linspace(-1, 1, 36).view(3, 12).requires_grad_()
        windows = series.unfold(1, 8, 1)
        found.append(torch.autograd.grad(layer(windows)[0].square().sum(), series)[0])
    torch.testing.assert_close(*found, rtol=0, atol=1e-5 * found[1].abs().max().item())


def test_one_span_as_a_tensor(backend, assert_equal_paths):
    layer = CfC(3, 5)
    given = inputs(layer, 3, 4, "none")
    assert_equal_paths(layer, {**given, "spans": torch.tensor(0.3)})
