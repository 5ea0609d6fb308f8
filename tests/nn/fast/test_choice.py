"""Who runs a call: the fast path, the plain loop, or an error that says why not."""

import copy
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapted import Adapted
from ncps.wirings import AutoNCP
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from liquid_train.nn import LTC, CfC, CfCCell
from liquid_train.nn.layer import run_fast
from liquid_train.nn.shapes import inner_modules

LAYERS = {
    "CfC": lambda **options: CfC(3, 6, **options),
    "WiredCfC": lambda **options: CfC(3, AutoNCP(12, 3), **options),
    "LTC": lambda **options: LTC(3, AutoNCP(12, 3), **options),
}


@pytest.fixture(params=LAYERS)
def build(request):
    return LAYERS[request.param]


@pytest.fixture
def calls(monkeypatch):
    """Count calls of the fast path."""
    seen = []

    def counted(*arguments):
        seen.append(arguments)
        return run_fast(*arguments)

    monkeypatch.setattr("liquid_train.nn.layer.run_fast", counted)
    return seen


def x(dtype=torch.float32):
    return torch.randn(2, 4, 3, dtype=dtype)


@pytest.mark.parametrize(("fast", "count"), [(True, 1), ("auto", 1), (False, 0)])
def test_the_user_chooses(fast, count, build, calls):
    build(fast=fast)(x())
    assert len(calls) == count


def test_an_unknown_choice_is_refused(build):
    with pytest.raises(ValueError, match="fast='yes' is unknown"):
        build(fast="yes")


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


def test_hooks_for_all_modules_are_called(build, backend):
    layer, seen = build(), []
    with register_module_forward_hook(lambda module, *_: seen.append(module)):
        layer(x())
        with torch.no_grad():
            layer(x()[:, :1])
    assert seen.count(layer.rnn_cell) == 4 + 1


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_needs_nothing_of_ours(strict, build, kernels, calls):
    layer, given = build().eval(), x()[:, :2]
    with torch.no_grad():
        expected = layer(given)[0]
        calls.clear()
        program = torch.export.export(layer, (given,), strict=strict)
        assert not calls
        assert "liquid_train" not in str([node.target for node in program.graph.nodes])
        torch.testing.assert_close(program.module()(given)[0], expected)
        layer.fast = True
        with pytest.raises(Exception, match="being exported"):
            torch.export.export(layer, (given,), strict=strict)


def test_checkpoints_of_activations(build, backend):
    layer, given = build(), x().requires_grad_()
    found = []
    for reentrant in (None, True, False):
        layer.zero_grad()
        given.grad = None
        if reentrant is None:
            output = layer(given)[0]
        else:
            output = checkpoint(lambda given: layer(given)[0], given, use_reentrant=reentrant)
        output.square().sum().backward()
        found.append([given.grad, *(p.grad for p in layer.parameters() if p.grad is not None)])
    for same in zip(*found, strict=True):
        assert torch.equal(same[0], same[1])
        assert torch.equal(same[0], same[2])


def test_a_functional_call(build, backend):
    layer, given = build(fast=True), x()
    others = {name: (p.detach() * 1.1).requires_grad_() for name, p in layer.named_parameters()}
    output = torch.func.functional_call(layer, others, (given,))[0]
    gradients = torch.autograd.grad(output.square().sum(), others.values(), allow_unused=True)
    layer.load_state_dict({**layer.state_dict(), **others})
    layer(given)[0].square().sum().backward()
    for mine, parameter in zip(gradients, layer.parameters(), strict=True):
        assert mine is None if parameter.grad is None else torch.equal(mine, parameter.grad)


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of the tracer
def test_a_trace_holds_the_plain_loop(build, kernels):
    layer = build().eval()
    with torch.no_grad():
        traced = torch.jit.trace(layer, (x(),), check_trace=False)
        given = x()
        torch.testing.assert_close(traced(given)[0], layer(given)[0], rtol=1e-5, atol=1e-5)


def test_an_empty_batch(build, backend):
    layer = build()
    output, state = layer(torch.empty(0, 4, 3))
    assert output.shape == (0, 4, layer.output_size)
    assert state.shape == (0, layer.state_size)
    output.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("batch_first", [True, False])
def test_outputs_are_contiguous(build, batch_first, backend):
    """As those of the plain loop are, whatever the order in which they were computed."""
    layer = build()
    layer.batch_first = batch_first
    assert layer(x())[0].is_contiguous()


def test_inference_mode(build, backend):
    layer, given = build(), x()
    expected = layer(given)[0]
    with torch.inference_mode():
        torch.testing.assert_close(layer(given)[0], expected)
        assert layer(given[:, :1])[0].is_inference()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own, from its jvp
def test_function_transforms(build):
    layer, given = build(), x()
    parameters = dict(layer.named_parameters())

    def loss(parameters, given):
        return torch.func.functional_call(layer, parameters, (given,))[0].square().sum()

    gradients = torch.func.grad(loss)(parameters, given)
    loss(parameters, given).backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(gradients[name], parameter.grad)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, given.unsqueeze(1))
    for name, parameter in parameters.items():
        torch.testing.assert_close(each[name].sum(0), parameter.grad, rtol=1e-4, atol=1e-5)
    _, moved = torch.func.jvp(lambda given: loss(parameters, given), (given,), (torch.ones_like(given),))
    assert moved.isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spans", [None, torch.rand(2, 4)], ids=["", "spans"])
def test_autocast_gives_the_plain_dtypes(build, dtype, spans, backend):
    layer, given = build(), x()
    results = []
    for fast in (True, False):
        layer.fast = fast
        with torch.autocast("cpu", dtype):
            results.append(layer(given, timespans=spans))
    for mine, plain in zip(*results, strict=True):
        assert mine.dtype == plain.dtype
        torch.testing.assert_close(mine, plain, rtol=0.05, atol=0.05)
    results[0][0].float().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("options", [{}, {"mode": "pure"}, {"output_mapping": None}], ids=str)
def test_outputs_may_be_changed_in_place(options, batch, batch_first, backend):
    kind = LTC if "output_mapping" in options else CfC
    given, found = torch.randn(batch, 4, 3), []
    layer = kind(3, 6, batch_first=batch_first, **options)
    for layer.fast in (True, False):
        output, state = layer(given if batch_first else given.transpose(0, 1))
        (output.mul_(2).square().sum() + state.sum()).backward()
        found.append([p.grad.clone() for p in layer.parameters() if p.grad is not None])
        layer.zero_grad()
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def test_backward_can_be_run_twice(build, backend):
    layer = build()
    loss = layer(x())[0].square().sum()
    loss.backward(retain_graph=True)
    first = [None if p.grad is None else p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    loss.backward()
    for before, parameter in zip(first, layer.parameters(), strict=True):
        assert before is None if parameter.grad is None else torch.equal(before, parameter.grad)


def test_copies_and_files(build, kernels):
    layer, given = build(), x()
    with torch.no_grad():
        expected = layer(given)[0]
        layer(given[:, :1])
        assert torch.equal(copy.deepcopy(layer)(given)[0], expected)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(given)[0], expected)


def test_replicas_of_one_process(build, backend, monkeypatch):
    """Those of ``nn.DataParallel`` have tensors in place of parameters; here they stay on the CPU."""
    module = importlib.import_module("torch.nn.parallel.replicate")

    def copies(tensors, devices, detach=False):
        return [[part.detach() if detach else part.view_as(part) for part in tensors] for _ in devices]

    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", copies)
    layer, given = build(), x()
    expected = layer(given)[0]
    for replica in module.replicate(layer, [0, 1]):
        output = replica(given)[0]
        torch.testing.assert_close(output, expected)
        output.sum().backward()
    assert all(p.grad is not None for name, p in layer.named_parameters() if "output" not in name)


def test_data_parallel(tmp_path, kernels):
    command = [sys.executable, Path(__file__).with_name("parallel.py"), tmp_path / "group"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


@pytest.mark.parametrize("build", [LAYERS["CfC"], LAYERS["WiredCfC"]])
def test_an_input_of_inference_mode_takes_the_plain_loop_in_training(build):
    layer = build()
    with torch.inference_mode():
        given = x()
    layer(given)[0].sum().backward()
    with pytest.raises(ValueError, match="a tensor was made in inference mode"):
        build(fast=True)(given)
    with torch.no_grad():
        build(fast=True)(given)


def test_one_step_without_a_bias():
    layer = unbiased()
    with torch.no_grad():
        step, _ = layer(x()[:, :1])
        whole, _ = layer(x())
    assert step.shape == (2, 1, 6)
    assert whole.shape == (2, 4, 6)
