"""Cells that the fast path does not serve: it says why, and the plain loop runs them."""

import pytest
import torch
from adapted import Adapted
from ncps.wirings import AutoNCP
from torch import nn
from torch.nn.utils import prune

from liquid_train.nn import LTC, CfC, CfCCell
from liquid_train.nn.shapes import inner_modules


def x(dtype=torch.float32):
    return torch.randn(2, 4, 3, dtype=dtype)


def hooked():
    layer = CfC(3, 6)
    layer.rnn_cell.ff1.register_forward_hook(lambda *_: None)
    return layer


def mine():
    layer = CfC(3, 6)
    layer.rnn_cell.ff1.__class__ = type("Mine", (nn.Linear,), {})
    return layer


def bent(index, activation):
    layer = CfC(3, 6, backbone_layers=2, activation="gelu")
    layer.rnn_cell.backbone[index] = activation
    return layer


def unbiased():
    layer = CfC(3, 6)
    layer.rnn_cell.ff1.bias = None
    return layer


def unfinished():
    layer = CfC(3, 6, backbone_layers=2)
    del layer.rnn_cell.backbone[3]
    return layer


def replaced(name, module):
    layer = CfC(3, 6)
    setattr(layer.rnn_cell, name, module(getattr(layer.rnn_cell, name)))
    return layer


def patched():
    layer = CfC(3, 6)
    head = layer.rnn_cell.ff1
    inner = head.forward
    head.forward = lambda z: inner(z) + 1
    return layer


def no_parameter(layer, module, name):
    tensor = getattr(module, name).detach().clone()
    delattr(module, name)
    setattr(module, name, tensor)
    return layer


def tensor_for_a_head():
    layer = CfC(3, 6)
    return no_parameter(layer, layer.rnn_cell.ff1, "weight")


def tensor_in_a_layer():
    layer = CfC(3, AutoNCP(12, 3), mode="pure")
    return no_parameter(layer, layer.rnn_cell.layer_1, "A")


def tensor_for_a_neuron():
    layer = LTC(3, 6)
    return no_parameter(layer, layer.rnn_cell, "w")


def pruned():
    layer = bent(0, nn.Linear(9, 40))
    layer.rnn_cell.backbone[2] = nn.Linear(40, 128)
    return layer


def shared():
    layer = LTC(3, 6)
    layer.rnn_cell.gleak = nn.Parameter(torch.ones(1))
    return layer


REFUSED = {
    "mixed_memory=True": (lambda: CfC(3, 6, mixed_memory=True), torch.float32),
    "ff1 has hooks": (hooked, torch.float32),
    "ff1 is a Mine": (mine, torch.float32),
    "ff1 has no bias": (unbiased, torch.float32),
    "backbone has activations that": (lambda: bent(1, nn.Softplus()), torch.float32),
    "backbone has activations": (lambda: bent(3, nn.Softplus()), torch.float32),
    "backbone has activations that only": (lambda: bent(3, nn.GELU("tanh")), torch.float32),
    "backbone has activations .*knows": (unfinished, torch.float32),
    "ff1 is a Adapted": (lambda: replaced("ff1", Adapted), torch.float32),
    "backbone is a Adapted": (lambda: replaced("backbone", Adapted), torch.float32),
    "a Sequential is where a Linear belongs": (
        lambda: replaced("time_a", lambda head: nn.Sequential(head, nn.Tanh())),
        torch.float32,
    ),
    "a Linear is where a Sequential belongs": (
        lambda: replaced("backbone", lambda _: nn.Linear(9, 128)),
        torch.float32,
    ),
    "ff1 has hooks, which": (patched, torch.float32),
    "ff1 has a tensor in place of a parameter": (tensor_for_a_head, torch.float32),
    "layer_1 has a tensor in place of a parameter": (tensor_in_a_layer, torch.float32),
    "the cell has a tensor in place of a parameter": (tensor_for_a_neuron, torch.float32),
    "a tensor of shape .128, 40. is where .40, 40. belongs": (pruned, torch.float32),
    "a tensor of shape .1,. is where .6,. belongs": (shared, torch.float32),
    "backbone_dropout=0.5": (lambda: CfC(3, 6, backbone_dropout=0.5), torch.float32),
    "dtype torch.bfloat16": (lambda: CfC(3, 6).bfloat16(), torch.bfloat16),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_where_it_cannot_serve_true_says_why_and_auto_does_without(reason, calls):
    make, dtype = REFUSED[reason]
    layer = make()
    layer.fast = True
    with pytest.raises(ValueError, match=f"fast=True but .*{reason}.*: use fast='auto' or fast=False"):
        layer(x(dtype))
    layer.fast = "auto"
    layer(x(dtype))
    with torch.no_grad():
        layer(x(dtype)[:, :1])
    assert not calls


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
    layer = unbiased()
    with torch.no_grad():
        step, _ = layer(x()[:, :1])
        whole, _ = layer(x())
    assert step.shape == (2, 1, 6)
    assert whole.shape == (2, 4, 6)
