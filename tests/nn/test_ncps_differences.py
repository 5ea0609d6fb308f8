"""Sequences, time spans, precision and dropout that ncps.torch 1.0.1 gets wrong, and what we do."""

import ncps.torch
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils._pytree import tree_leaves

from liquid_train.nn import LTC, CfC


class TestTimeSpans:
    def test_of_a_batch(self, layers, drive, assert_same):
        ours, theirs = layers[0](), layers[1]()
        theirs.load_state_dict(ours.state_dict())
        x, spans = torch.randn(4, 5, 3), torch.rand(4, 5)
        with pytest.raises(RuntimeError, match="must match the size"):
            theirs(x, timespans=spans)
        assert_same(ours(x, timespans=spans), drive(theirs, x, spans=spans.unsqueeze(-1)))

    def test_of_a_batch_as_large_as_the_state(self, drive):
        ours, theirs = CfC(3, 6), ncps.torch.CfC(3, 6)
        theirs.load_state_dict(ours.state_dict())
        x, spans = torch.randn(6, 5, 3), torch.rand(6, 5)
        right = drive(theirs, x, spans=spans.unsqueeze(-1))[0]
        assert not torch.allclose(theirs(x, timespans=spans)[0], right, atol=1e-3)
        torch.testing.assert_close(ours(x, timespans=spans)[0], right)

    @pytest.mark.parametrize("span", [2.0, 2, torch.tensor(2.0), torch.tensor(2)])
    def test_one_number(self, layers, span):
        layer, x = layers[0](), torch.randn(4, 5, 3)
        expected = layer(x, timespans=torch.full((4, 5), 2.0))[0]
        torch.testing.assert_close(layer(x, timespans=span)[0], expected)

    def test_of_whole_numbers(self, layers):
        layer, x = layers[0](), torch.randn(4, 5, 3)
        spans = torch.randint(1, 9, (4, 5))
        torch.testing.assert_close(layer(x, timespans=spans)[0], layer(x, timespans=spans.float())[0])

    def test_of_zero(self):
        ours, theirs = LTC(3, 4), ncps.torch.LTC(3, 4)
        x, hx = torch.randn(1, 1, 3), torch.randn(1, 4)
        assert theirs(x, hx, torch.zeros(1, 1))[1].isnan().all()
        torch.testing.assert_close(ours(x, hx, torch.zeros(1, 1))[1], hx)


class TestSequences:
    def test_without_steps(self, layers):
        with pytest.raises(RuntimeError, match="non-empty TensorList"):
            layers[1]()(torch.empty(2, 0, 3))
        ours = layers[0]()
        output, hx = ours(torch.empty(2, 0, 3))
        assert output.shape == (2, 0, ours.output_size)
        assert torch.equal(hx, torch.zeros(2, ours.state_size))

    def test_packed(self, layers):
        packed = pack_sequence([torch.randn(5, 3), torch.randn(2, 3)])
        with pytest.raises(AttributeError):
            layers[1]()(packed)
        assert layers[0]()(packed)[0].data.shape[0] == 7

    def test_compile_to_one_graph(self, layers, assert_same):
        layer, x, spans, lengths = layers[0](), torch.randn(2, 3, 3), torch.rand(2, 3), torch.tensor([3, 2])
        compiled = torch.compile(layer, backend="eager", fullgraph=True)
        assert_same(compiled(x, None, spans, lengths), layer(x, None, spans, lengths))

    def test_last_output_of_one_sequence_time_first(self, layers):
        options = {"return_sequences": False, "batch_first": False}
        ours, theirs = layers[0](**options), layers[1](**options)
        x = torch.randn(5, 3)
        assert theirs(x)[0].shape == (1, ours.output_size)
        assert ours(x)[0].shape == (ours.output_size,)


class TestPrecisionAndDevice:
    @pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
    def test_bfloat16(self, layers, mixed):
        layer, x = layers[0](mixed_memory=mixed), torch.randn(4, 5, 3)
        exact = layer(x, timespans=torch.full((4, 5), 0.5))
        rounded = layer.bfloat16()(x.bfloat16(), timespans=torch.full((4, 5), 0.5))
        for part, expected in zip(tree_leaves(rounded), tree_leaves(exact), strict=True):
            assert part.dtype == torch.bfloat16
            torch.testing.assert_close(part.float(), expected, rtol=0.1, atol=0.1)

    def test_bfloat16_fails_in_ncps(self):
        with pytest.raises(RuntimeError, match="must have the same dtype"):
            ncps.torch.CfC(3, 4).bfloat16()(torch.randn(2, 5, 3).bfloat16())

    @pytest.mark.parametrize("lengths", [None, [5, 2]])
    @pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
    def test_autocast_keeps_the_state_in_single_precision(self, layers, mixed, lengths):
        layer, x = layers[0](mixed_memory=mixed), torch.randn(2, 5, 3)
        exact = layer(x, lengths=lengths)
        with torch.autocast("cpu", torch.bfloat16):
            output, hx = layer(x, lengths=lengths)
        for part, expected in zip(tree_leaves(hx), tree_leaves(exact[1]), strict=True):
            assert part.dtype == torch.float32
            torch.testing.assert_close(part, expected, rtol=0.05, atol=0.05)
        output.float().sum().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in layer.parameters())

    @pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
    def test_everything_made_on_the_way_is_on_the_device_of_the_input(self, layers, mixed):
        layer, x = layers[0](mixed_memory=mixed).to("meta"), torch.empty(2, 5, 3, device="meta")
        result = layer(x, timespans=torch.ones(2, 5, device="meta"), lengths=torch.tensor([5, 2]))
        assert {part.device.type for part in tree_leaves(result)} == {"meta"}

    def test_whole_number_input(self, layers):
        layer, x = layers[0](), torch.randint(0, 2, (2, 5, 3))
        torch.testing.assert_close(layer(x)[0], layer(x.float())[0])


class TestDropout:
    def test_acts_on_a_single_backbone_layer(self):
        options = {"backbone_dropout": 0.5, "backbone_layers": 1}
        ours, theirs, x = CfC(3, 6, **options), ncps.torch.CfC(3, 6, **options), torch.randn(4, 5, 3)
        theirs.load_state_dict(ours.state_dict())
        assert torch.equal(theirs(x)[0], theirs(x)[0])
        assert not torch.equal(ours(x)[0], ours(x)[0])
        torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x)[0])

    def test_equals_ncps_on_several(self, assert_same):
        options = {"backbone_dropout": 0.5, "backbone_layers": 3}
        ours, theirs, x = CfC(3, 6, **options), ncps.torch.CfC(3, 6, **options), torch.randn(4, 5, 3)
        theirs.load_state_dict(ours.state_dict())
        torch.manual_seed(5)
        mine = ours(x)
        torch.manual_seed(5)
        assert_same(mine, theirs(x))
