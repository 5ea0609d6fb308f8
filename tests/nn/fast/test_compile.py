"""Compiled modules run the fast path as it is: same numbers, nothing is unrolled, sizes may change."""

from contextlib import nullcontext

import pytest
import torch
from ncps.wirings import AutoNCP
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from liquid_train.nn import LTC, CfC
from liquid_train.nn.fast.compiled import operators
from liquid_train.nn.native.library import without_kernels

BUILDS = {
    "default": lambda: CfC(3, 6),
    "no_gate": lambda: CfC(3, 6, mode="no_gate", backbone_layers=2),
    "pure": lambda: CfC(3, 6, mode="pure"),
    "silu": lambda: CfC(3, 6, activation="silu", backbone_units=16),
    "wired": lambda: CfC(3, AutoNCP(12, 3)),
    "strict_pure": lambda: CfC(3, AutoNCP(12, 3), mode="pure", strict_wiring=True),
    "LTC": lambda: LTC(3, 6),
    "LTC_wired": lambda: LTC(3, AutoNCP(12, 3), output_mapping=None),
}


@pytest.fixture(autouse=True)
def _forget():
    torch._dynamo.reset()


def counted():
    return CompileCounterWithBackend("aot_eager")


def compiled(layer, backend="aot_eager"):
    layer.fast = True
    return torch.compile(layer, backend=backend, fullgraph=True)


def assert_same(layer, model, x, **options):
    """Compare output, state and all gradients of a layer and its compiled form."""
    found = []
    for call in (layer, model):
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        output, state = call(leaf, **options)
        (output.square().sum() + state.sum()).backward()
        named = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
        found.append({"output": output, "state": state, "input": leaf.grad, **named})
    eager, mine = found
    assert eager.keys() == mine.keys()
    for name, expected in eager.items():
        torch.testing.assert_close(
            mine[name], expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def dynamic(*tensors):
    for tensor in tensors:
        for dim in range(min(tensor.dim(), 2)):
            torch._dynamo.mark_dynamic(tensor, dim)


@pytest.mark.parametrize("name", BUILDS)
def test_every_layer(name, kernels):
    layer = BUILDS[name]()
    assert_same(layer, compiled(layer), torch.randn(5, 4, 3), timespans=torch.rand(5, 4))


# Dynamo's own, where it goes on after what it cannot compile.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("fast", ["auto", False])
@pytest.mark.parametrize("kind", [CfC, LTC])
def test_packed_sequences(kind, fast, kernels):
    layer, x, lengths = kind(3, 6, fast=fast), torch.randn(4, 5, 3), torch.tensor([2, 5, 1, 4])

    def run(x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, state = layer(packed)
        return *pad_packed_sequence(output, batch_first=True), state

    results = []
    for call in (run, torch.compile(run, backend="aot_eager")):
        layer.zero_grad()
        output, counts, state = call(x, lengths)
        (output.square().sum() + state.sum()).backward()
        assert counts.equal(lengths)
        results.append((output, state, *(p.grad for p in layer.parameters() if p.grad is not None)))
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize("name", ["default", "pure", "silu", "LTC", "LTC_wired"])
def test_without_time_spans(name, backend):
    layer = BUILDS[name]()
    assert_same(layer, compiled(layer), torch.randn(5, 4, 3))


@pytest.mark.parametrize("name", ["default", "LTC_wired"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_autograd(mode, name, kernels):
    layer, x = BUILDS[name](), torch.randn(5, 4, 3)
    model = compiled(layer)
    with mode():
        torch.testing.assert_close(model(x)[0], layer(x)[0])


@pytest.mark.parametrize("name", ["default", "LTC_wired"])
def test_another_batch_and_length_are_the_same_program(name, backend):
    layer, counter = BUILDS[name](), counted()
    model = compiled(layer, counter)
    for B, T in ((4, 5), (6, 9), (3, 4)):
        x, spans, lengths = torch.randn(B, T, 3), torch.rand(B, T), torch.randint(0, T + 1, (B,))
        dynamic(x, spans, lengths)
        output = model(x, timespans=spans, lengths=lengths)[0]
        torch.testing.assert_close(output, layer(x, timespans=spans, lengths=lengths)[0])
        output.sum().backward()
    assert counter.frame_count == 1


@pytest.mark.parametrize("fast", [True, False])
def test_shapes_fit_where_one_is_known_and_the_other_is_not(fast, kernels):
    layer, x, spans = CfC(3, 6, fast=fast), torch.randn(4, 3, 3), torch.rand(4, 3)
    for dim in (0, 1):
        torch._dynamo.maybe_mark_dynamic(x, dim)
    model = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(model(x, timespans=spans)[0], layer(x, timespans=spans)[0])


@pytest.mark.parametrize("name", ["default", "LTC"])
def test_after_a_second_number_as_time_span_any_is_the_same_program(name, kernels):
    layer, counter, x = BUILDS[name](), counted(), torch.randn(4, 5, 3)
    model = compiled(layer, counter)
    for span in (0.7, 0.9, 1.3, 2.0):
        torch.testing.assert_close(model(x, timespans=span)[0], layer(x, timespans=span)[0])
    assert counter.frame_count == 2


@pytest.mark.parametrize("kind", [CfC, LTC])
def test_the_program_does_not_grow_with_the_sequence(kind, kernels):
    def operations(steps):
        torch._dynamo.reset()
        counter = counted()
        layer = kind(3, 6)
        compiled(layer, counter)(torch.randn(2, steps, 3))
        return len(counter.graphs[0].graph.nodes)

    assert operations(50) == operations(3)


@pytest.mark.parametrize("shape", [(1, 5, 3), (5, 1, 3), (5, 3)], ids=str)
def test_sizes_of_one(shape, kernels):
    layer = CfC(3, 6)
    assert_same(layer, compiled(layer), torch.randn(shape))


@pytest.mark.parametrize("name", ["cfc", "ltc", "cfc_steps", "ltc_steps"])
def test_the_operators_keep_the_rules_for_such(name, monkeypatch, kernels):
    calls, original = [], operators.call

    def noted(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr("liquid_train.nn.fast.compiled.operators.call", noted)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    layer = CfC(3, 6) if name.startswith("cfc") else LTC(3, 6)
    with without_kernels() if name.endswith("steps") else nullcontext():
        layer(torch.randn(4, 5, 3), timespans=torch.rand(4, 5))
    ((found, constants, given),) = calls
    assert found == name
    tensors = [part.detach().requires_grad_(part.requires_grad) for part in given if part is not None]
    places = [place for place, part in enumerate(given) if part is not None]
    span = torch.tensor(constants[-1], dtype=torch.float64)
    operator = getattr(torch.ops.liquid_train, name).default
    torch.library.opcheck(operator, (tensors, places, *constants[:-1], span, True))


def test_steps_first(kernels):
    layer = CfC(3, 6, batch_first=False)
    assert_same(layer, compiled(layer), torch.randn(4, 5, 3))


def test_double_precision(kernels):
    layer = CfC(3, 6).double()
    assert_same(layer, compiled(layer), torch.randn(4, 5, 3, dtype=torch.float64))


@pytest.mark.parametrize("spans", [None, torch.rand(4, 5)], ids=["", "spans"])
@pytest.mark.parametrize("inside", [True, False])
def test_autocast(inside, spans, kernels):
    layer, x = CfC(3, 6, fast=True), torch.randn(4, 5, 3)

    def within(x):
        with torch.autocast("cpu", torch.bfloat16):
            return layer(x, timespans=spans)[0]

    expected = within(x)
    if inside:
        output = torch.compile(within, backend="aot_eager", fullgraph=True)(x)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            output = compiled(layer)(x, timespans=spans)[0]
    assert output.dtype == expected.dtype
    torch.testing.assert_close(output, expected)
    output.float().sum().backward()


def test_outputs_may_be_changed_in_place(backend):
    for name in ("pure", "LTC_wired"):
        layer, x = BUILDS[name](), torch.randn(4, 5, 3)

        def changed(x, layer=layer):
            return layer(x)[0].mul_(2)

        output = torch.compile(changed, backend="aot_eager", fullgraph=True)(x)
        torch.testing.assert_close(output, 2 * layer(x)[0])
        output.sum().backward()


def test_parameters_are_read_anew(kernels):
    layer, x = CfC(3, 6), torch.randn(4, 5, 3)
    model, optimizer = compiled(layer), torch.optim.SGD(layer.parameters(), 0.5)
    for _ in range(3):
        output = model(x)[0]
        torch.testing.assert_close(output, layer(x)[0])
        optimizer.zero_grad()
        output.square().sum().backward()
        optimizer.step()


def test_a_program_with_kernels_is_not_used_without(kernels):
    layer, counter, x = CfC(3, 6), counted(), torch.randn(4, 5, 3)
    model = compiled(layer, counter)
    expected = model(x)[0]
    with without_kernels():
        torch.testing.assert_close(model(x)[0], expected)
    model(x)
    assert counter.frame_count == 2


def test_transforms_of_functions_take_the_plain_loop(kernels):
    layer, x = CfC(3, 6), torch.randn(2, 2, 3)
    parameters = dict(layer.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,))[0].square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))
    mine = torch.compile(each, backend="aot_eager", fullgraph=True)(parameters, x.unsqueeze(1))
    for name, expected in each(parameters, x.unsqueeze(1)).items():
        torch.testing.assert_close(mine[name], expected, rtol=1e-4, atol=1e-5)


def test_what_the_fast_path_cannot_serve_is_unrolled(kernels):
    layer, x = CfC(3, 6, mixed_memory=True), torch.randn(4, 2, 3)
    model = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(model(x)[0], layer(x)[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # PyTorch's own
def test_the_compiler_that_makes_code(kernels):
    layer = CfC(3, AutoNCP(12, 3), proj_size=2)
    assert_same(layer, compiled(layer, "inductor"), torch.randn(5, 4, 3))
