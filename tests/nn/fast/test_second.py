"""Derivatives of derivatives: those of the plain loop, or of finite differences in double precision."""

import pytest
import torch
from ncps.wirings import AutoNCP

from liquid_train.nn import LTC, CfC

SPANS = ("none", "irregular")
BUILDS = {
    "default": lambda: CfC(2, 3, backbone_units=4),
    "no_gate": lambda: CfC(2, 3, mode="no_gate", backbone_units=4, backbone_layers=2),
    "pure": lambda: CfC(2, 3, mode="pure", backbone_units=4, activation="tanh"),
    "silu": lambda: CfC(2, 3, backbone_units=4, activation="silu"),
    "no_backbone": lambda: CfC(2, 3, backbone_layers=0),
    "wired": lambda: CfC(2, AutoNCP(8, 2)),
    "strict_pure": lambda: CfC(2, AutoNCP(8, 2), mode="pure", strict_wiring=True),
    "LTC": lambda: LTC(2, 4, ode_unfolds=2),
    "LTC_wired": lambda: LTC(2, AutoNCP(6, 2), ode_unfolds=2, output_mapping=None),
    "LTC_implicit": lambda: LTC(2, 3, ode_unfolds=2, implicit_param_constraints=True),
}


@pytest.fixture(params=BUILDS)
def layer(request):
    layer = BUILDS[request.param]()
    for name, parameter in layer.named_parameters():
        if name.endswith("w_tau"):  # zero at first, where its absolute value has no derivative
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    layer.fast = True
    return layer


def given(layer, spans, dtype=torch.float32):
    x, hx = torch.randn(2, 3, 2, dtype=dtype), torch.randn(2, layer.state_size, dtype=dtype) * 0.5
    made = {"input": x.requires_grad_(), "hx": hx.requires_grad_()}
    if spans == "irregular":
        made["timespans"] = (torch.rand(2, 3, dtype=dtype) + 0.1).requires_grad_()
    return made


def both(layer, compute):
    """Return what ``compute`` gives on the fast path and on the plain one."""
    found = []
    for layer.fast in (True, False):
        layer.zero_grad()
        found.append(compute())
    return found


def assert_near(mine, plain):
    for name, expected in plain.items():
        assert (mine[name] is None) == (expected is None), name
        if expected is not None:
            near = {"rtol": 0, "atol": 2e-5 * max(expected.abs().max().item(), 0.5)}
            torch.testing.assert_close(
                mine[name], expected, msg=lambda text, name=name: f"{name}: {text}", **near
            )


@pytest.mark.parametrize("spans", SPANS)
def test_by_finite_differences(layer, spans):
    layer.double()
    leaves = given(layer, spans, torch.float64)

    def call(*tensors):
        return layer(**dict(zip(leaves, tensors, strict=False)))

    # All parameters would take minutes.
    chosen = [
        p for name, p in layer.named_parameters() if name.rpartition(".")[2] in ("A", "w_tau", "mu", "cm")
    ]
    weights = [p for name, p in layer.named_parameters() if name.endswith(("ff1.weight", "0.weight"))][:1]
    torch.autograd.gradgradcheck(call, [*leaves.values(), *chosen, *weights])


@pytest.mark.parametrize("spans", SPANS)
def test_a_gradient_penalty(layer, spans, backend):
    """The gradient by every parameter and input of a loss that holds gradients by inputs."""
    leaves = given(layer, spans)
    named = {**dict(layer.named_parameters()), **leaves}

    def compute():
        output, state = layer(**leaves, lengths=[3, 2])
        loss = output.square().sum() + state.sum()
        first = torch.autograd.grad(loss, leaves.values(), create_graph=True)
        penalty = loss + sum(part.square().sum() for part in first)
        gradients = torch.autograd.grad(penalty, named.values(), allow_unused=True)
        return dict(
            zip((*named, *range(len(first))), (*gradients, *(p.detach() for p in first)), strict=True)
        )

    assert_near(*both(layer, compute))


def test_a_product_of_the_hessian_of_the_weights(layer, backend):
    leaves = given(layer, "irregular")
    named = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    vectors = {name: torch.randn_like(p) for name, p in named.items()}

    def compute():
        loss = layer(**leaves)[0].square().sum()
        first = torch.autograd.grad(loss, named.values(), create_graph=True, allow_unused=True)
        pairs = [(g, v) for g, v in zip(first, vectors.values(), strict=True) if g is not None]
        product = sum((g * v).sum() for g, v in pairs)
        return dict(zip(named, torch.autograd.grad(product, named.values(), allow_unused=True), strict=True))

    assert_near(*both(layer, compute))


@pytest.mark.parametrize("vectorize", [False, True])
def test_a_whole_hessian(layer, vectorize, backend):
    given_x = torch.randn(1, 2, 2)

    def compute():
        def loss(x):
            return layer(x)[0].square().sum()

        return {"": torch.autograd.functional.hessian(loss, given_x, vectorize=vectorize)}

    assert_near(*both(layer, compute))


def test_third_derivatives(layer, backend):
    leaf = torch.randn(1, 2, 2, requires_grad=True)

    def compute():
        found = layer(leaf)[0].square().sum()
        for _ in range(3):
            (found,) = torch.autograd.grad(found.sum(), leaf, create_graph=True)
        return {"": found.detach()}

    assert_near(*both(layer, compute))


def test_a_weight_used_twice_counts_twice_and_no_more(backend):
    layer, leaf = CfC(2, 3, backbone_units=4), torch.randn(1, 3, 2, requires_grad=True)
    layer.rnn_cell.time_a.weight = layer.rnn_cell.time_b.weight
    weight = layer.rnn_cell.time_b.weight

    def compute():
        loss = layer(leaf)[0].square().sum()
        (first,) = torch.autograd.grad(loss, weight, create_graph=True)
        return {"first": first.detach(), "second": torch.autograd.grad(first.square().sum(), weight)[0]}

    assert_near(*both(layer, compute))


def test_inputs_changed_after_the_call_are_noticed(backend):
    layer, leaf = CfC(2, 3), torch.randn(1, 2, 2, requires_grad=True)
    given_x = leaf * 1.0
    (first,) = torch.autograd.grad(layer(given_x)[0].sum(), leaf, create_graph=True)
    first.sum().backward()
    loss = layer(given_x)[0].sum()
    given_x.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, leaf, create_graph=True)
