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
from ncps.wirings import AutoNCP
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.checkpoint import checkpoint

from liquid_train.nn import LTC, CfC

LAYERS = {
    "CfC": lambda **options: CfC(3, 6, **options),
    "WiredCfC": lambda **options: CfC(3, AutoNCP(12, 3), **options),
    "LTC": lambda **options: LTC(3, AutoNCP(12, 3), **options),
}


@pytest.fixture(params=LAYERS)
def build(request):
    return LAYERS[request.param]


def x(dtype=torch.float32):
    return torch.randn(2, 4, 3, dtype=dtype)


@pytest.mark.parametrize(("fast", "count"), [(True, 1), ("auto", 1), (False, 0)])
def test_the_user_chooses(fast, count, build, calls):
    build(fast=fast)(x())
    assert len(calls) == count


def test_an_unknown_choice_is_refused(build):
    with pytest.raises(ValueError, match="fast='yes' is unknown"):
        build(fast="yes")


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
