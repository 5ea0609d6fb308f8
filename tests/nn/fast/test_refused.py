"""Cells that the fast path does not serve: it says why, and the plain loop runs them."""

import copy
import gc
import sys
import weakref

import pytest
import torch
from adapted import Adapted
from ncps.wirings import AutoNCP
from torch import nn
from torch.nn.utils import prune

from liquid_train.nn import LTC, CfC, CfCCell
from liquid_train.nn.shapes import inner_modules

why_not = sys.modules["liquid_train.nn.fast.why_not"]


def x(dtype=torch.float32):
    return torch.randn(2, 4, 3, dtype=dtype)


def hooked(layer):
    layer.rnn_cell.ff1.register_forward_hook(lambda *_: None)


def mine(layer):
    layer.rnn_cell.ff1.__class__ = type("Mine", (nn.Linear,), {})


def bent(index, activation):
    def change(layer):
        layer.rnn_cell.backbone[index] = activation

    return change


def unbiased(layer):
    layer.rnn_cell.ff1.bias = None


def unfinished(layer):
    del layer.rnn_cell.backbone[3]


def replaced(name, module):
    return lambda layer: setattr(layer.rnn_cell, name, module(getattr(layer.rnn_cell, name)))


def patched(layer):
    head = layer.rnn_cell.ff1
    inner = head.forward
    head.forward = lambda z: inner(z) + 1


def no_parameter(module, name):
    tensor = getattr(module, name).detach().clone()
    delattr(module, name)
    setattr(module, name, tensor)


def cut(layer):
    layer.rnn_cell.backbone[0] = nn.Linear(9, 40)
    layer.rnn_cell.backbone[2] = nn.Linear(40, 128)


def shared(layer):
    layer.rnn_cell.gleak = nn.Parameter(torch.ones(1))


def turned(layer):
    layer.rnn_cell.ff1.weight.data = layer.rnn_cell.ff1.weight.data.view(128, 6)


def unrolled(layer, given):
    layer.fast = False
    return layer(given)


def cfc():
    return CfC(3, 6)


def deep():
    return CfC(3, 6, backbone_layers=2, activation="gelu")


def ltc():
    return LTC(3, 6)


# How a layer is made that is served, and what is then done to it.
REFUSED = {
    "ff1 has hooks": (cfc, hooked),
    "ff1 is a Mine": (cfc, mine),
    "ff1 has no bias": (cfc, unbiased),
    "backbone has activations that": (deep, bent(1, nn.Softplus())),
    "backbone has activations": (deep, bent(3, nn.Softplus())),
    "backbone has activations that only": (deep, bent(3, nn.GELU("tanh"))),
    "backbone has activations that .*knows": (
        deep,
        lambda layer: [setattr(layer.rnn_cell.backbone[i], "approximate", "tanh") for i in (1, 3)],
    ),
    "backbone has activations .*knows": (deep, unfinished),
    "ff1 is a Adapted": (cfc, replaced("ff1", Adapted)),
    "backbone is a Adapted": (cfc, replaced("backbone", Adapted)),
    "a Sequential is where a Linear belongs": (
        cfc,
        replaced("time_a", lambda head: nn.Sequential(head, nn.Tanh())),
    ),
    "a Linear is where a Sequential belongs": (cfc, replaced("backbone", lambda _: nn.Linear(9, 128))),
    "ff1 has hooks, which": (cfc, patched),
    "ff1 has a tensor in place of a parameter": (
        cfc,
        lambda layer: no_parameter(layer.rnn_cell.ff1, "weight"),
    ),
    "layer_1 has a tensor in place of a parameter": (
        lambda: CfC(3, AutoNCP(12, 3), mode="pure"),
        lambda layer: no_parameter(layer.rnn_cell.layer_1, "A"),
    ),
    "the cell has a tensor in place of a parameter": (ltc, lambda layer: no_parameter(layer.rnn_cell, "w")),
    "a tensor of shape .128, 40. is where .40, 40. belongs": (deep, cut),
    "a tensor of shape .128, 6. is where .6, 128. belongs": (cfc, turned),
    "a tensor of shape .1,. is where .6,. belongs": (ltc, shared),
    "backbone_dropout=0.5": (lambda: CfC(3, 6, backbone_dropout=0.5).eval(), lambda layer: layer.train()),
    "dtype torch.bfloat16": (cfc, lambda layer: layer.bfloat16()),
    "ff1 has hooks, which only": (
        cfc,
        lambda layer: setattr(layer.rnn_cell.ff1, "_forward_hooks", {0: lambda *_: None}),
    ),
}


@pytest.mark.parametrize("called", [False, True], ids=["new", "called before"])
@pytest.mark.parametrize("reason", REFUSED)
def test_where_it_cannot_serve_true_says_why_and_auto_does_without(reason, called, calls, backend):
    make, change = REFUSED[reason]
    layer = make()
    layer.fast = True
    if called:
        layer(x())
        calls.clear()
    change(layer)
    given = x(torch.bfloat16 if "bfloat16" in reason else torch.float32)
    with pytest.raises(ValueError, match=f"fast=True but .*{reason}.*: use fast='auto' or fast=False"):
        layer(given)
    if change is turned:  # the plain loop cannot run that either
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            unrolled(layer, given)
        return
    layer.fast = "auto"
    layer(given)
    with torch.no_grad():
        layer(given[:, :1])
    assert not calls


@pytest.mark.parametrize("layer", [CfC(3, 6), LTC(3, 6)], ids=["CfC", "LTC"])
def test_an_input_that_lies_elsewhere_than_the_state_is_refused(layer, backend):
    x, hx = torch.empty(2, 5, 3, device="meta"), torch.zeros(2, 6)
    layer.fast = True
    with pytest.raises(ValueError, match="the input is on meta but the parameters are on cpu"):
        layer(x, hx)
    layer.fast = "auto"
    with pytest.raises(RuntimeError):
        layer(x, hx)


def test_a_memory_cell_is_refused(calls):
    layer = CfC(3, 6, mixed_memory=True, fast=True)
    with pytest.raises(ValueError, match=r"fast=True but mixed_memory=True puts a memory cell between"):
        layer(x())
    layer.fast = "auto"
    layer(x())
    assert not calls


@pytest.mark.parametrize("kind", [cfc, lambda: CfC(3, AutoNCP(12, 3)), ltc], ids=["CfC", "wired", "LTC"])
def test_what_is_known_of_a_cell_is_looked_up_once_and_goes_with_it(kind, monkeypatch):
    looked, look = [], why_not._look
    monkeypatch.setattr(why_not, "_look", lambda cell: looked.append(cell) or look(cell))
    layer = kind()
    for _ in range(3):
        layer(x())
    assert len(looked) == 1
    twin = copy.deepcopy(layer)
    looked.clear()
    twin(x())
    assert looked == [twin.rnn_cell]
    cell = weakref.ref(layer.rnn_cell)
    looked.clear()
    gc.disable()
    del layer
    gone = cell() is None
    gc.enable()
    assert gone


@pytest.mark.parametrize("kind", [cfc, ltc])
def test_a_cell_that_was_pickled_without_the_place_for_what_is_known_gets_one(kind, backend):
    layer = kind()
    del layer.rnn_cell._kept
    layer.fast = True
    layer(x())
    with torch.no_grad():
        layer(x()[:, :1])


def test_weights_that_were_computed_are_freed():
    layer = cfc()
    computed = {name: 2 * parameter for name, parameter in layer.named_parameters()}
    gone = weakref.ref(computed["rnn_cell.ff1.weight"])
    torch.func.functional_call(layer, computed, (x(),))[0].sum().backward()
    del computed
    assert gone() is None


def test_pruned_weights(backend):
    """While a mask is at work a hook multiplies with it; when it is done the weight comes after the bias."""
    layer, given = CfC(3, 6), x()
    for module in (layer.rnn_cell.backbone[0], layer.rnn_cell.time_b):
        prune.random_unstructured(module, "weight", 0.5)
    expected = layer(given)[0]
    for module in (layer.rnn_cell.backbone[0], layer.rnn_cell.time_b):
        prune.remove(module, "weight")
    layer.fast = True
    torch.testing.assert_close(layer(given)[0], expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(given[:, :1])[0], expected[:, :1])


def test_a_cell_of_another_size_fails_as_in_the_plain_loop(backend):
    layer, wired = CfC(3, 6), CfC(3, AutoNCP(16, 4))
    layer.rnn_cell = CfCCell(3, 600)
    wired.rnn_cell.layer_0 = CfCCell(3, 2, backbone_layers=0)
    for one in (layer, wired):
        with pytest.raises(RuntimeError):
            one(x())


def test_modules_that_hold_one_another_have_an_end():
    cell = CfC(3, 6).rnn_cell
    cell.ff1 = Adapted(cell.ff1)
    cell.ff1.cell = cell
    assert inner_modules(cell).count(cell) == 1


def test_one_step_without_a_bias():
    layer = cfc()
    unbiased(layer)
    with torch.no_grad():
        step, _ = layer(x()[:, :1])
        whole, _ = layer(x())
    assert step.shape == (2, 1, 6)
    assert whole.shape == (2, 4, 6)
