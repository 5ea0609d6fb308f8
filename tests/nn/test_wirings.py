"""Wirings: models leave them alone, read them right, and follow them to the letter when asked."""

import copy

import ncps.torch
import numpy as np
import pytest
import torch
from ncps.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring

from liquid_train.nn import LTC, CfC, LTCCell, WiredCfCCell

WIRINGS = {
    "AutoNCP": lambda: AutoNCP(20, 4),
    "NCP": lambda: NCP(5, 4, 2, 3, 2, 3, 2),
    "FullyConnected": lambda: FullyConnected(6, 2),
    "Random": lambda: Random(7, 3, sparsity_level=0.4),
}


@pytest.fixture(params=WIRINGS)
def wiring(request):
    return WIRINGS[request.param]()


class TestWiring:
    @pytest.mark.parametrize("layer", [CfC, LTC])
    def test_is_not_changed_by_a_model(self, layer, wiring):
        before = wiring.adjacency_matrix.copy()
        first, second = layer(3, wiring), layer(3, wiring)
        third = layer(5, wiring)
        assert not wiring.is_built()
        assert np.array_equal(wiring.adjacency_matrix, before)
        assert first.rnn_cell.synapse_count == second.rnn_cell.synapse_count > 0
        assert first.rnn_cell.sensory_synapse_count == second.rnn_cell.sensory_synapse_count
        for name, value in first.state_dict().items():
            if "mask" in name or "erev" in name:
                assert torch.equal(value, second.state_dict()[name]), name
        assert third.input_size == 5

    def test_is_changed_by_each_model_of_ncps(self):
        wiring = AutoNCP(20, 4)
        ncps.torch.LTC(3, wiring)
        once = np.count_nonzero(wiring.adjacency_matrix)
        ncps.torch.LTC(3, wiring)
        assert np.count_nonzero(wiring.adjacency_matrix) > once

    @pytest.mark.parametrize("layer", [CfC, LTC])
    def test_that_is_built_is_taken_as_it_is(self, layer, wiring):
        wiring.build(3)
        layer_ = layer(None, wiring)
        assert layer_.input_size == 3
        assert np.array_equal(layer_.wiring.adjacency_matrix, wiring.adjacency_matrix)
        assert np.array_equal(layer_.wiring.sensory_adjacency_matrix, wiring.sensory_adjacency_matrix)
        assert layer_.wiring is not wiring

    def test_counts_sensory_synapses(self):
        theirs = ncps.torch.LTCCell(AutoNCP(20, 4), 3)
        ours = LTCCell(AutoNCP(20, 4), 3)
        assert theirs.sensory_synapse_count == theirs.synapse_count
        assert ours.synapse_count == theirs.synapse_count == ours.sparsity_mask.count_nonzero()
        assert ours.sensory_synapse_count == ours.sensory_sparsity_mask.count_nonzero() != ours.synapse_count
        layer = LTC(3, AutoNCP(20, 4))
        assert layer.synapse_count == ours.synapse_count
        assert layer.sensory_synapse_count == ours.sensory_synapse_count

    def test_sizes(self):
        layer = LTC(3, AutoNCP(20, 4))
        sizes = (layer.sensory_size, layer.state_size, layer.motor_size, layer.output_size, layer.input_size)
        assert sizes == (3, 20, 4, 4, 3)
        cell = WiredCfCCell(3, AutoNCP(20, 4))
        assert (cell.sensory_size, cell.state_size, cell.motor_size, cell.output_size) == (3, 20, 4, 4)
        assert cell.num_layers == len(cell.layer_sizes) == 3
        assert sum(cell.layer_sizes) == 20

    @pytest.mark.parametrize("units", [6, AutoNCP(20, 4)], ids=["plain", "wired"])
    def test_output_size_is_that_of_the_projection(self, units):
        theirs = ncps.torch.CfC(3, copy.deepcopy(units), proj_size=5)
        ours = CfC(3, units, proj_size=5)
        x = torch.randn(2, 5, 3)
        assert theirs.output_size != theirs(x)[0].shape[-1]
        assert ours.output_size == ours(x)[0].shape[-1] == 5
        assert ours.wired_mode == isinstance(units, Wiring)
        assert (ours.wiring is not None) == ours.wired_mode

    def test_output_size_of_a_single_layer_wiring(self):
        theirs, ours = ncps.torch.CfC(3, FullyConnected(6, 2)), CfC(3, FullyConnected(6, 2))
        x = torch.randn(2, 5, 3)
        assert (theirs.output_size, theirs(x)[0].shape[-1]) == (2, 6)
        assert ours.output_size == ours(x)[0].shape[-1] == 6
        with pytest.raises(RuntimeError):
            ncps.torch.CfC(3, FullyConnected(6, 2), proj_size=4)(x)
        assert CfC(3, FullyConnected(6, 2), proj_size=4)(x)[0].shape[-1] == 4

    @pytest.mark.parametrize("layer", [CfC, LTC])
    def test_without_output_size_outputs_every_neuron(self, layer):
        wiring = Wiring(4)
        wiring.add_synapse(0, 1, 1)
        assert layer(3, wiring)(torch.randn(2, 5, 3))[0].shape == (2, 5, 4)
        assert wiring.output_dim is None


def absent_and_present(cell):
    """Split the gradients of a wired CfC's heads into those of absent and of present synapses of the wiring."""
    wiring = cell.wiring
    sources = wiring.sensory_adjacency_matrix
    absent, present = [], []
    for index, layer in enumerate(cell.children()):
        neurons = wiring.get_neurons_of_layer(index)
        signs = np.concatenate([sources[:, neurons], wiring.adjacency_matrix[np.ix_(neurons, neurons)]])
        sources = wiring.adjacency_matrix[neurons]
        mask = torch.as_tensor(signs.T != 0)
        for name, parameter in layer.named_parameters():
            if name.endswith("weight"):
                absent.append(parameter.grad[~mask])
                present.append(parameter.grad[mask])
    return torch.cat(absent), torch.cat(present)


class TestStrictWiring:
    @pytest.mark.parametrize("mode", ["default", "pure", "no_gate"])
    def test_absent_synapses_carry_no_gradient(self, mode):
        layer = CfC(3, AutoNCP(20, 4), mode=mode, strict_wiring=True)
        layer(torch.randn(4, 6, 3), timespans=torch.rand(4, 6))[0].square().sum().backward()
        absent, present = absent_and_present(layer.rnn_cell)
        assert len(absent) > 0
        assert not absent.any()
        assert present.count_nonzero() > 0.9 * len(present)

    def test_absent_synapses_carry_gradient_by_default_as_in_ncps(self):
        layer = CfC(3, AutoNCP(20, 4))
        layer(torch.randn(4, 6, 3))[0].square().sum().backward()
        absent, _ = absent_and_present(layer.rnn_cell)
        assert absent.any()

    def test_an_absent_synapse_changes_nothing(self):
        layer = CfC(3, AutoNCP(20, 4), strict_wiring=True)
        x = torch.randn(2, 6, 3)
        expected = layer(x)[0]
        with torch.no_grad():
            for cell in layer.rnn_cell.children():
                for head in (cell.ff1, cell.ff2, cell.time_a, cell.time_b):
                    head.weight[cell.sparsity_mask == 0] = 99.0
        torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=0)

    def test_equals_the_default_where_every_synapse_is_present(self, assert_same):
        loose, strict = CfC(3, FullyConnected(6)), CfC(3, FullyConnected(6), strict_wiring=True)
        strict.load_state_dict(loose.state_dict())
        x = torch.randn(2, 6, 3)
        assert_same(strict(x), loose(x), rtol=0, atol=0)

    def test_outputs_motor_neurons_only(self):
        loose, strict = CfC(3, FullyConnected(6, 2)), CfC(3, FullyConnected(6, 2), strict_wiring=True)
        strict.load_state_dict(loose.state_dict())
        x = torch.randn(2, 6, 3)
        assert strict.output_size == 2
        assert torch.equal(strict(x)[0], loose(x)[0][..., :2])

    @pytest.mark.parametrize("assign", [False, True])
    def test_stays_strict_when_it_loads_a_checkpoint_of_ncps(self, assign):
        source = ncps.torch.CfC(3, AutoNCP(20, 4)).state_dict()
        before = {name: value.clone() for name, value in source.items()}
        strict = CfC(3, AutoNCP(20, 4), strict_wiring=True)
        masks = {name: value.clone() for name, value in strict.named_buffers()}
        strict.load_state_dict(source, assign=assign)
        assert torch.equal(
            strict.state_dict()["rnn_cell.layer_1.ff1.weight"], source["rnn_cell.layer_1.ff1.weight"]
        )
        for name, value in strict.named_buffers():
            assert torch.equal(value, masks[name]), name
        for name, value in source.items():
            assert torch.equal(value, before[name]), name

    def test_a_loaded_mask_counts_by_default(self, assert_same):
        theirs, ours = ncps.torch.CfC(3, AutoNCP(20, 4, seed=1)), CfC(3, AutoNCP(20, 4, seed=2))
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(2, 6, 3)
        assert_same(ours(x), theirs(x))
