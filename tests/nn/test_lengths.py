"""Sequences of different lengths equal each sequence run alone, with irregular time spans too."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ncps.wirings import NCP, AutoNCP, FullyConnected, Random
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from liquid_train.nn import LTC, CfC

EXACT = {"rtol": 1e-10, "atol": 1e-12}
LENGTHS = [4, 1, 7, 4, 2]
UNITS = {
    "plain": lambda: 5,
    "AutoNCP": lambda: AutoNCP(12, 3),
    "NCP": lambda: NCP(5, 4, 2, 3, 2, 3, 2),
    "FullyConnected": lambda: FullyConnected(6, 2),
    "Random": lambda: Random(7, sparsity_level=0.4),
}


def build(kind, units="plain", **options):
    if kind == "LTC":
        options.pop("proj_size", None)
        return LTC(3, UNITS[units](), **options).double()
    return CfC(3, UNITS[units](), **options).double()


def batch(layer, lengths=LENGTHS, fill=float("nan")):
    """Return leaves (input [B, T, 3], time spans [B, T], states) whose padding holds ``fill``."""
    B, T = len(lengths), max(lengths)
    x, spans = torch.randn(B, T, 3).double(), torch.rand(B, T).double() * 2
    for row, steps in enumerate(lengths):
        x[row, steps:] = fill
        spans[row, steps:] = fill
    states = [torch.randn(B, layer.state_size).double() for _ in range(1 + layer.use_mixed)]
    return [leaf.requires_grad_() for leaf in (x, spans, *states)]


def hidden(states):
    return tuple(states) if len(states) == 2 else states[0]


def parts(hx):
    return hx if isinstance(hx, tuple) else (hx,)


def alone(layer, leaves, lengths=LENGTHS):
    """Run every sequence by itself, without a batch; pad and stack what comes out."""
    x, spans, *states = leaves
    outputs, ends = [], []
    for row, steps in enumerate(lengths):
        output, hx = layer(x[row, :steps], hidden([s[row] for s in states]), spans[row, :steps])
        missing = x.shape[1] - steps if layer.return_sequences else 0
        outputs.append(
            torch.cat([output, output.new_zeros(missing, output.shape[-1])]) if missing else output
        )
        ends.append(parts(hx))
    return torch.stack(outputs), tuple(map(torch.stack, zip(*ends, strict=True)))


def assert_equals_alone(layer, result, leaves, gradients, assert_same, lengths=LENGTHS):
    twins = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    expected = alone(layer, twins, lengths)
    assert_same(result, expected, **EXACT)
    mine, other = gradients(result, layer, *leaves), gradients(expected, layer, *twins)
    for name in mine:
        if other[name] is None:
            assert mine[name] is None, name
            continue
        assert torch.isfinite(mine[name]).all(), name
        torch.testing.assert_close(mine[name], other[name], **EXACT)


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_first", "time_first"])
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("kind", ["CfC", "LTC"])
def test_lengths(kind, units, mixed, batch_first, gradients, assert_same):
    layer = build(kind, units, mixed_memory=mixed, proj_size=2)
    leaves = batch(layer)
    x, spans, *states = leaves
    layer.batch_first = batch_first
    if not batch_first:
        x, spans = x.transpose(0, 1), spans.t().unsqueeze(-1)
    output, hx = layer(x, hidden(states), spans, lengths=LENGTHS)
    result = (output if batch_first else output.transpose(0, 1), hx)
    assert_equals_alone(layer, result, leaves, gradients, assert_same)


@pytest.mark.parametrize("mode", ["pure", "no_gate"])
def test_lengths_in_other_modes(mode, gradients, assert_same):
    layer = build("CfC", mode=mode)
    leaves = batch(layer)
    result = layer(leaves[0], leaves[2], leaves[1], lengths=LENGTHS)
    assert_equals_alone(layer, result, leaves, gradients, assert_same)


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
def test_last_output_is_that_of_the_true_end(kind, mixed, gradients, assert_same):
    layer = build(kind, "AutoNCP", mixed_memory=mixed, proj_size=2, return_sequences=False)
    leaves = batch(layer)
    x, spans, *states = leaves
    result = layer(x, hidden(states), spans, torch.tensor(LENGTHS))
    assert_equals_alone(layer, result, leaves, gradients, assert_same)


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
@pytest.mark.parametrize("fill", [0.0, 1e30, float("inf"), float("nan")])
def test_padding_is_not_read(kind, fill, gradients, assert_same):
    layer = build(kind)
    leaves = batch(layer, fill=fill)
    result = layer(leaves[0], leaves[2], leaves[1], lengths=LENGTHS)
    assert_equals_alone(layer, result, leaves, gradients, assert_same)
    for row, steps in enumerate(LENGTHS):
        assert not result[0][row, steps:].any()


@pytest.mark.parametrize("sort", [True, False], ids=["sorted", "unsorted"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_first", "time_first"])
@pytest.mark.parametrize("packed_spans", [True, False], ids=["packed_spans", "padded_spans"])
@pytest.mark.parametrize("kind", ["CfC", "LTC"])
def test_packed_sequence(kind, packed_spans, batch_first, sort, assert_same):
    layer = build(kind, mixed_memory=True, proj_size=2)
    lengths = sorted(LENGTHS, reverse=True) if sort else LENGTHS
    x, spans, *states = batch(layer, lengths)
    layer.batch_first = True
    expected, ends = layer(x, hidden(states), spans, lengths)

    layer.batch_first = batch_first
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=sort)
    if packed_spans:
        spans = pack_padded_sequence(spans, lengths, batch_first=True, enforce_sorted=sort)
    elif not batch_first:
        spans = spans.t()
    output, hx = layer(packed, hidden(states), spans)
    expected = pack_padded_sequence(expected, lengths, batch_first=True, enforce_sorted=sort)
    assert isinstance(output, PackedSequence)
    for mine, other in zip(output, expected, strict=True):
        torch.testing.assert_close(mine, other, **EXACT)
    assert_same((output.data, hx), (expected.data, ends), **EXACT)


def test_packed_sequence_as_torch_does():
    packed = pack_sequence([torch.randn(n, 3) for n in LENGTHS], enforce_sorted=False)
    mine, state = CfC(3, 5)(packed)
    other, (torch_state, _) = torch.nn.LSTM(3, 5, batch_first=True)(packed)
    assert mine.data.shape == other.data.shape
    assert state.shape == torch_state[0].shape
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(mine, name), getattr(other, name)), name


def test_packed_sequence_gives_last_outputs_in_the_original_order():
    layer = build("CfC", return_sequences=False)
    x, spans, state = batch(layer)
    expected, _ = layer(x, state, spans, LENGTHS)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    output, _ = layer(packed, state, spans)
    torch.testing.assert_close(output, expected, **EXACT)


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
def test_one_sequence_with_a_length(kind, assert_same):
    layer = build(kind)
    x, spans, state = batch(layer, [7])
    for length in (3, torch.tensor(3), [3]):
        output, hx = layer(x[0], state[0], spans[0], length)
        expected, end = layer(x[0, :3], state[0], spans[0, :3])
        assert_same((output[:3], hx), (expected, end), **EXACT)
        assert not output[3:].any()


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
@pytest.mark.parametrize("sequences", [True, False], ids=["all", "last"])
def test_a_sequence_without_steps_keeps_its_state(kind, sequences, gradients):
    layer = build(kind, proj_size=2, return_sequences=sequences)
    leaves = batch(layer, [0, 3])
    result = layer(leaves[0], leaves[2], leaves[1], [0, 3])
    assert torch.equal(result[1][0], leaves[2][0])
    assert not result[0][0].any()
    assert result[0][1].all()
    assert all(torch.isfinite(g).all() for g in gradients(result, layer, *leaves).values() if g is not None)


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
@pytest.mark.parametrize("sequences", [True, False], ids=["all", "last"])
def test_no_steps_at_all(kind, mixed, sequences):
    layer = build(kind, "AutoNCP", mixed_memory=mixed, proj_size=2, return_sequences=sequences)
    states = [torch.randn(4, 12).double() for _ in range(1 + mixed)]
    output, hx = layer(torch.empty(4, 0, 3).double(), hidden(states))
    width = layer.output_size
    assert output.shape == ((4, 0, width) if sequences else (4, width))
    assert not output.any()
    for end, start in zip(parts(hx), states, strict=True):
        assert torch.equal(end, start)
    assert layer(torch.empty(0, 3).double())[1][0].shape == ((12,) if mixed else ())


def test_lengths_do_not_change_a_full_batch():
    layer = build("CfC")
    x, spans, state = batch(layer, [5, 5])
    full, end = layer(x, state, spans)
    same, same_end = layer(x, state, spans, [5, 5])
    assert torch.equal(full, same)
    assert torch.equal(end, same_end)


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(), kind=st.sampled_from(["CfC", "LTC"]), batch_first=st.booleans(), sequences=st.booleans()
)
def test_any_shape(data, kind, batch_first, sequences):
    B, C, H = (data.draw(st.integers(1, 4), label=name) for name in "BCH")
    T = data.draw(st.integers(0, 5), label="T")
    lengths = data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B), label="lengths")
    layer = {"CfC": CfC, "LTC": LTC}[kind](C, H, return_sequences=sequences, batch_first=batch_first).double()
    x, spans = torch.randn(B, T, C).double(), torch.rand(B, T).double()
    arguments = (x, spans) if batch_first else (x.transpose(0, 1), spans.t())
    output, hx = layer(arguments[0], timespans=arguments[1], lengths=lengths)
    for row, steps in enumerate(lengths):
        expected, end = layer(x[row, :steps], timespans=spans[row, :steps])
        torch.testing.assert_close(hx[row], end, **EXACT)
        mine = output[row] if batch_first or not sequences else output[:, row]
        if sequences:
            assert mine.shape == (T, layer.output_size)
            assert not mine[steps:].any()
            mine = mine[:steps]
        torch.testing.assert_close(mine, expected, **EXACT)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32]
)
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("kind", [CfC, LTC])
def test_lengths_of_any_kind_of_whole_number(kind, return_sequences, dtype):
    layer, x = kind(3, 4, return_sequences=return_sequences), torch.randn(2, 5, 3)
    for mine, expected in zip(
        layer(x, lengths=torch.tensor([3, 1], dtype=dtype)), layer(x, lengths=[3, 1]), strict=True
    ):
        assert torch.equal(mine, expected)
