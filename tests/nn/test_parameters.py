"""Parameters: names and draws of ncps.torch 1.0.1, and every way of replacing them."""

import copy
import io

import ncps.torch
import pytest
import torch

from liquid_train.nn import CfC, CfCCell, MemoryCell


def test_masks_are_buffers(layers):
    ours, theirs = layers[0](), layers[1]()
    trainable = {name for name, p in theirs.named_parameters() if p.requires_grad}
    assert {name for name, _ in ours.named_parameters()} == trainable
    assert set(ours.state_dict()) == set(theirs.state_dict())


@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
def test_state_dicts_load_both_ways(layers, mixed, assert_same):
    ours, theirs = layers[0](mixed_memory=mixed), layers[1](mixed_memory=mixed)
    x = torch.randn(2, 5, 3)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert_same(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
    theirs = layers[1](mixed_memory=mixed)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_same(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"mixed_memory": True}], ids=str)
def test_same_seed_same_weights(layers, options):
    torch.manual_seed(3)
    ours = layers[0](**options).state_dict()
    torch.manual_seed(3)
    theirs = layers[1](**options).state_dict()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_same_seed_same_weights_with_projection_and_backbone():
    options = {"proj_size": 2, "mode": "no_gate", "backbone_layers": 3, "backbone_dropout": 0.1}
    torch.manual_seed(3)
    ours = CfC(3, 6, **options).state_dict()
    torch.manual_seed(3)
    theirs = ncps.torch.CfC(3, 6, **options).state_dict()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_pure_starts_at_its_own_values():
    ours, theirs = CfCCell(3, 6, "pure"), ncps.torch.CfCCell(3, 6, "pure")
    assert not torch.equal(theirs.A, torch.ones(1, 6))
    assert torch.equal(ours.A, torch.ones(1, 6))
    assert torch.equal(ours.w_tau, torch.zeros(1, 6))


def test_load_with_assign(layers, assert_same):
    x, source = torch.randn(2, 5, 3), layers[0]()
    layer = layers[0]()
    layer.load_state_dict(source.state_dict(), assign=True)
    assert_same(layer(x), source(x))


def test_load_with_assign_is_lost_on_ncps_ltc():
    x, source, layer = torch.randn(2, 5, 3), ncps.torch.LTC(3, 6), ncps.torch.LTC(3, 6)
    layer.load_state_dict(source.state_dict(), assign=True)
    assert not torch.allclose(layer(x)[0], source(x)[0])


def test_functional_call(layers, assert_same):
    x, source, layer = torch.randn(2, 5, 3), layers[0](), layers[0]()
    assert_same(torch.func.functional_call(layer, source.state_dict(), (x,)), source(x))


def test_functional_call_is_lost_on_ncps_ltc():
    x, source, layer = torch.randn(2, 5, 3), ncps.torch.LTC(3, 6), ncps.torch.LTC(3, 6)
    called = torch.func.functional_call(layer, source.state_dict(), (x,))[0]
    assert torch.equal(called, layer(x)[0])


@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
def test_meta_device(layers, mixed, assert_same):
    source = layers[0](mixed_memory=mixed)
    with torch.device("meta"):
        layer = layers[0](mixed_memory=mixed)
    assert {value.device.type for value in layer.state_dict().values()} == {"meta"}
    layer = layer.to_empty(device="cpu")
    layer.load_state_dict(source.state_dict())
    x = torch.randn(2, 5, 3)
    assert_same(layer(x), source(x))


def test_reset_parameters_draws_what_the_constructor_draws(layers):
    torch.manual_seed(3)
    expected = layers[0]().state_dict()
    with torch.device("meta"):
        layer = layers[0]()
    layer = layer.to_empty(device="cpu")
    with torch.no_grad():
        for value in layer.state_dict().values():
            value.fill_(float("nan"))
    torch.manual_seed(3)
    layer.reset_parameters()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_reset_parameters_of_a_memory_cell():
    cell = MemoryCell(3, 6)
    drawn = copy.deepcopy(cell.state_dict())
    cell.reset_parameters()
    for name, value in cell.state_dict().items():
        assert not torch.equal(value, drawn[name]), name
    for weight in (cell.recurrent_map.weight, drawn["recurrent_map.weight"]):
        torch.testing.assert_close(weight.T @ weight, torch.eye(6))
    assert cell.input_map.bias.abs().max() <= 0.1


def test_reset_parameters_of_a_projection():
    torch.manual_seed(3)
    layer = CfC(3, 6, proj_size=2, mode="pure")
    expected = copy.deepcopy(layer.state_dict())
    torch.manual_seed(3)
    layer.reset_parameters()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_copies_and_pickles(layers, assert_same):
    layer, x, stored = layers[0](), torch.randn(2, 5, 3), io.BytesIO()
    torch.save(layer, stored)
    stored.seek(0)
    for twin in (copy.deepcopy(layer), torch.load(stored, weights_only=False)):
        assert_same(twin(x), layer(x))


def test_export(layers, assert_same):
    layer, x = layers[0]().eval(), torch.randn(2, 2, 3)
    exported = torch.export.export(layer, (x,))
    assert_same(exported.module()(x), layer(x))
