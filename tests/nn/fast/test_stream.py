"""A stream gives the numbers of the plain loop, with and without the kernels."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from adapted import Adapted
from ncps.wirings import AutoNCP, FullyConnected
from torch import nn
from torch.nn.utils import prune

from liquid_train.nn import LTC, CfC, CfCCell
from liquid_train.nn.native.library import without_kernels
from liquid_train.nn.streaming.native_stream import NativeStream
from liquid_train.nn.streaming.numpy_stream import NumpyStream

LAYERS = {
    "default": lambda **o: CfC(3, 37, **o),
    "no_gate": lambda **o: CfC(3, 16, mode="no_gate", activation="relu", proj_size=2, **o),
    "pure": lambda **o: CfC(3, 7, mode="pure", backbone_layers=2, backbone_units=5, **o),
    "no_backbone": lambda **o: CfC(20, 9, backbone_layers=0, **o),
    "deep": lambda **o: CfC(3, 20, activation="tanh", backbone_layers=3, backbone_units=70, **o),
    "silu": lambda **o: CfC(3, 8, activation="silu", **o),
    "gelu": lambda **o: CfC(3, 8, activation="gelu", backbone_dropout=0.5, **o),
    "wired": lambda **o: CfC(3, AutoNCP(30, 7), proj_size=4, **o),
    "wired pure": lambda **o: CfC(3, AutoNCP(30, 7), mode="pure", **o),
    "strict": lambda **o: CfC(3, AutoNCP(30, 7), strict_wiring=True, **o),
    "mixed": lambda **o: CfC(3, 8, mixed_memory=True, **o),
    "mixed wired": lambda **o: CfC(3, AutoNCP(12, 3), mixed_memory=True, **o),
    "LTC": lambda **o: LTC(3, 19, **o),
    "wired LTC": lambda **o: LTC(3, AutoNCP(40, 7), implicit_param_constraints=False, **o),
    "unmapped LTC": lambda **o: LTC(5, 4, input_mapping=None, output_mapping="linear", ode_unfolds=2, **o),
    "mixed LTC": lambda **o: LTC(2, FullyConnected(6, 2), mixed_memory=True, **o),
}
KINDS = ("default", "wired", "mixed", "wired LTC")


def made(name):
    """Return a layer whose every parameter matters."""
    layer = LAYERS[name](fast=False).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in layer.named_parameters():
            # In an LTC the sign of a weight is that of a conductance.
            low = 0.0 if isinstance(layer, LTC) and "erev" not in key else -0.5
            parameter += torch.rand(parameter.shape, generator=generator) * 0.3 + low * 0.3
    return layer


def tensors(state):
    return (state,) if isinstance(state, torch.Tensor) else state


def close(mine, expected, tolerance=5e-6):
    for one, other in zip(tensors(mine), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=tolerance)


@torch.no_grad()
def looped(layer, x, spans, state=None):
    """Return outputs and states of each step of the plain loop; spans ``[B, T]`` or a number."""
    outputs, states = [], []
    for t in range(x.shape[1]):
        span = spans[:, t : t + 1] if isinstance(spans, torch.Tensor) else spans
        output, state = layer(x[:, t : t + 1], state, timespans=span)
        outputs.append(output[:, 0])
        states.append(state)
    return outputs, states


@pytest.mark.parametrize("spans", ["one", "number", "samples", "zero"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_the_plain_loop(backend, name, batch, spans):
    layer = made(name)
    x = torch.randn(batch, 6, layer.input_size)
    spans = {"one": 1.0, "number": 0.3, "zero": 0.0, "samples": torch.rand(batch, 6)}[spans]
    if isinstance(spans, torch.Tensor):
        spans[:, 2] = 0.0
    stream = layer.stream(batch)
    for t, (output, state) in enumerate(zip(*looped(layer, x, spans), strict=True)):
        mine = stream.step(x[:, t], spans[:, t] if isinstance(spans, torch.Tensor) else spans)
        assert not mine.requires_grad
        close(mine, output)
        close(stream.state, state)


def test_kernels_run_what_they_can(kernels):
    numpy = {"mixed", "mixed wired", "mixed LTC"}
    for name in LAYERS:
        layer = made(name)
        assert isinstance(layer.stream(), NumpyStream if name in numpy else NativeStream)
        assert isinstance(layer.double().stream(), NumpyStream)
        with without_kernels():
            assert isinstance(layer.float().stream(), NumpyStream)


def test_spans_that_change_and_come_again(backend):
    for name in KINDS:
        layer = made(name)
        stream, state = layer.stream(), None
        for span in (1.0, 0.5, 0.5, 0.5, 2.0, 0.5, 0, 1, 1, 1, torch.tensor(0.25), np.float32(0.25), [0.5]):
            x = torch.randn(1, layer.input_size)
            one = torch.as_tensor(np.asarray(span, "f").item())
            (output,), (state,) = looped(layer, x.unsqueeze(1), one.reshape(1, 1), state)
            close(stream.step(x, span), output)


@pytest.mark.parametrize("name", LAYERS)
def test_double_precision(backend, name):
    layer = made(name).double()
    x = torch.randn(2, 5, layer.input_size, dtype=torch.float64)
    stream = layer.stream(2)
    outputs, states = looped(layer, x, 0.7)
    mine = [stream.step(x[:, t], 0.7) for t in range(5)]
    for one, other in zip(mine, outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for one, other in zip(tensors(stream.state), tensors(states[-1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_long_stream_does_not_drift(backend):
    for name in KINDS:
        layer = made(name)
        layer.fast = "auto"
        x = torch.randn(1, 1000, layer.input_size)
        stream = layer.stream()
        for t in range(1000):
            output = stream.step(x[0, t])
        with torch.no_grad():
            close(output, layer(x)[0][0, -1], 2e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_state_is_set_and_reset(backend, name):
    layer = made(name)
    x = torch.randn(2, 4, layer.input_size)
    stream = layer.stream(2)
    first = [stream.step(x[:, t]) for t in range(4)]
    kept = stream.state
    ahead = stream.step(x[:, 0])
    stream.state = kept
    assert torch.equal(stream.step(x[:, 0]), ahead)
    stream.reset()
    assert all((part == 0).all() for part in tensors(stream.state))
    assert all(torch.equal(stream.step(x[:, t]), first[t]) for t in range(4))
    with torch.no_grad():
        _, state = layer(x)
        stream.state = state
        close(stream.step(x[:, 0]), layer(x[:, :1], state)[0][:, 0])


def test_what_is_read_of_the_state_stays(backend):
    for name in KINDS:
        stream = made(name).stream()
        read = stream.state
        stream.step(torch.ones(3))
        assert all((part == 0).all() for part in tensors(read))


@pytest.mark.parametrize("name", KINDS)
def test_weights_are_taken_when_made_and_by_refresh(backend, name):
    layer = made(name)
    x = torch.randn(1, 3)
    stream = layer.stream()
    old = stream.step(x)
    state = stream.state
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.5)
    stream.reset()
    assert torch.equal(stream.step(x), old)
    assert all(
        torch.equal(one, other) for one, other in zip(tensors(stream.state), tensors(state), strict=True)
    )
    stream.refresh()
    close(stream.state, state)
    with torch.no_grad():
        close(stream.step(x), layer(x.unsqueeze(1), state)[0][:, 0])


@pytest.mark.parametrize("name", KINDS)
def test_forms_of_the_input(backend, name):
    layer = made(name)
    numbers = [0.5, -1.0, 2.0]
    expected = layer.stream().step(torch.tensor([numbers]))
    wide = torch.zeros(3, 2)
    wide[:, 0] = torch.tensor(numbers)
    for x in (
        numbers,
        tuple(numbers),
        torch.tensor(numbers),
        torch.tensor(numbers, dtype=torch.float64),
        torch.tensor(numbers, requires_grad=True),
        torch.nn.Parameter(torch.tensor(numbers)),
        wide[:, 0],
        np.array(numbers),
        np.array(numbers, "f"),
        np.array(wide.numpy(), order="F")[:, 0],
    ):
        output = layer.stream().step(x)
        assert output.shape == (layer.output_size,)
        assert not output.requires_grad
        assert torch.equal(output, expected[0])
    for x in ([numbers], np.array([numbers]), torch.tensor([numbers])):
        assert torch.equal(layer.stream().step(x), expected)


def test_whole_numbers_are_taken(backend):
    layer = made("default")
    assert torch.equal(layer.stream().step([1, 2, 3]), layer.stream().step(torch.tensor([1, 2, 3])))


@pytest.mark.parametrize("name", KINDS)
def test_outputs_are_new_unless_asked_otherwise(backend, name):
    layer = made(name)
    for form in ((3,), (1, 3)):
        x = torch.ones(form)
        stream = layer.stream()
        first = stream.step(x)
        kept = first.clone()
        second = stream.step(x)
        assert torch.equal(first, kept)
        assert not torch.equal(first, second)
        stream = layer.stream(reuse_output=True)
        mine = [stream.step(x) for _ in range(3)]
        assert all(one.data_ptr() == other.data_ptr() for one, other in pairwise(mine))
        assert mine[0].shape == kept.shape
        assert torch.equal(layer.stream().step(x), kept)


def test_outputs_are_of_the_weights_precision(backend):
    before = torch.get_default_dtype()
    stream = made("default").stream()
    torch.set_default_dtype(torch.float64)
    try:
        assert stream.step(torch.ones(3, dtype=torch.float32)).dtype is torch.float32
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", KINDS)
def test_what_does_not_fit_is_refused_and_changes_nothing(backend, name):
    stream = made(name).stream(2)
    x = torch.randn(2, 3)
    stream.step(x)
    before = stream.state
    for wrong in (torch.ones(3), torch.ones(1, 3), torch.ones(2, 4), [1.0, 2.0, 3.0], np.ones((2, 3, 1))):
        with pytest.raises(ValueError, match="x has shape"):
            stream.step(wrong)
    for wrong in (torch.ones(3), [1.0], np.ones((1, 2))):
        with pytest.raises(ValueError, match="timespan has shape"):
            stream.step(x, wrong)
    shape = tensors(before)[0].shape
    for wrong in (torch.ones(shape[1]), torch.ones(1, shape[1]), torch.ones(2, shape[1] + 1)):
        with pytest.raises(ValueError, match="the state has"):
            stream.state = wrong
    assert all(
        torch.equal(one, other) for one, other in zip(tensors(before), tensors(stream.state), strict=True)
    )


def test_options_are_checked():
    layer = made("default")
    with pytest.raises(ValueError, match="batch_size=0"):
        layer.stream(0)
    with pytest.raises(ValueError, match="weights are bfloat16"):
        layer.bfloat16().stream()


@pytest.mark.parametrize(
    ("fc", "message"),
    [
        (nn.Linear(6, 1000), "fc maps 6 numbers to 1000, not 6 to 2"),
        (nn.Linear(5, 2), "fc maps 5 numbers to 2, not 6 to 2"),
        (nn.Identity(), "fc maps 6 numbers to 6, not 6 to 2"),
        (nn.Sequential(nn.Linear(6, 2), nn.Tanh()), "fc is a Sequential"),
        (nn.ReLU(), "fc is a ReLU"),
    ],
)
def test_a_projection_of_another_size_or_kind_is_refused(fc, message, backend):
    """It would write beyond the output, or be left out."""
    layer = CfC(3, 6, proj_size=2)
    layer.fc = fc
    with pytest.raises(ValueError, match=f"{message}, which cannot be streamed"):
        layer.stream()


def test_a_layer_with_parts_replaced(backend):
    layer = CfC(3, 6, proj_size=2)
    layer.fc = nn.Linear(6, 2, bias=False)
    layer.rnn_cell.backbone[0] = nn.Linear(9, 128, bias=False)
    layer.extra = nn.MSELoss()
    prune.random_unstructured(layer.rnn_cell.ff1, "weight", 0.5)
    x = torch.randn(1, 3)
    with torch.no_grad():
        close(layer.stream().step(x), layer(x.unsqueeze(1))[0][:, 0])


def test_a_map_after_an_ltc(backend):
    layer = LTC(3, 6)
    stream, layer.fc = layer.stream(), nn.Linear(6, 6)
    x = torch.randn(1, 3)
    if isinstance(stream, NativeStream):
        with pytest.raises(ValueError, match="fc was no Linear when the stream was made"):
            stream.refresh()
    with torch.no_grad():
        close(layer.stream().step(x), layer(x.unsqueeze(1))[0][:, 0])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 600), "takes 3 channels and 600 units, the layer"),
        ((5000, 6), "takes 5000 channels and 6 units, the layer"),
    ],
)
def test_a_cell_of_another_size_is_refused(sizes, message, backend):
    layer = CfC(3, 6)
    layer.rnn_cell = CfCCell(*sizes)
    with pytest.raises(ValueError, match=message):
        layer.stream()
    layer = CfC(3, AutoNCP(16, 4))
    layer.rnn_cell.layer_0 = CfCCell(3, 2, backbone_layers=0)
    with pytest.raises(ValueError, match="a layer of 3 inputs and 2 neurons is where one of 3 and"):
        layer.stream()


@pytest.mark.parametrize(
    "path", ["fc", "rnn_cell.ff1", "rnn_cell.backbone.0", "rnn_cell.backbone", "rnn_cell"]
)
def test_a_module_of_ones_own_is_refused(path, backend):
    """At first, and when the weights are read again."""
    layer = CfC(3, 6, proj_size=2)
    stream = layer.stream()
    before = stream.step(torch.ones(3))
    parent, _, name = path.rpartition(".")
    inner = layer.get_submodule(path)
    setattr(layer.get_submodule(parent), name, Adapted(inner))
    message = rf"{path} is a Adapted, which cannot be streamed: run the layer step by step"
    with pytest.raises(ValueError, match=message):
        stream.refresh()
    with pytest.raises(ValueError, match=message):
        layer.stream()
    stream.reset()
    assert torch.equal(stream.step(torch.ones(3)), before)


def test_a_cell_of_other_shapes_is_refused():
    """What is in the place of a module or parameter may have another shape, which kernels would not see."""
    layer = CfC(3, 6, backbone_layers=2)
    layer.rnn_cell.backbone[0], layer.rnn_cell.backbone[2] = nn.Linear(9, 40), nn.Linear(40, 128)
    with pytest.raises(ValueError, match=r"shape \(128, 40\) is where \(40, 40\) belongs, which cannot"):
        layer.stream()
    layer = LTC(3, 6)
    layer.rnn_cell.gleak = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=r"shape \(1,\) is where \(6,\) belongs"):
        layer.stream()


@pytest.mark.parametrize("name", KINDS)
def test_a_stream_is_not_copied(backend, name):
    stream = made(name).stream()
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"layer\.stream\(\)"):
            act(stream)


def test_in_training_with_gradients_and_autocast_nothing_changes(backend):
    layer = made("gelu")
    expected = layer.stream().step(torch.ones(3))
    layer.train()
    with torch.autocast("cpu"):
        assert torch.equal(layer.stream().step(torch.ones(3)), expected)
    with torch.inference_mode():
        assert torch.equal(layer.stream().step(torch.ones(3)), expected)


@pytest.mark.parametrize("layer", [CfC(3, 4), LTC(3, 4)], ids=["CfC", "LTC"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_precision_are_not_taken(layer, dtype, backend):
    layer = copy.deepcopy(layer)
    stream = layer.stream()
    before = stream.step(torch.ones(3))
    state = stream.state
    layer.to(dtype)
    with pytest.raises(ValueError, match="the layer's weights are"):
        stream.refresh()
    stream.reset()
    assert torch.equal(stream.step(torch.ones(3)), before)
    assert torch.equal(stream.state, state)


def test_an_input_of_half_precision(backend):
    stream = CfC(3, 4).stream()
    x = torch.randn(3).bfloat16()
    found = stream.step(x)
    stream.reset()
    assert torch.equal(found, stream.step(x.float()))
