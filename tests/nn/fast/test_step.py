"""One step without autograd, in C++, equals the plain one and sees every change of the weights."""

import copy
import gc
import itertools
import sys
import threading
import weakref

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import nn

from liquid_train.nn import LTC, CfC, CfCCell
from liquid_train.nn.native import step as module

CELLS = {
    "default": lambda: CfC(3, 37),
    "no_gate": lambda: CfC(3, 16, mode="no_gate", activation="relu"),
    "pure": lambda: CfC(3, 7, mode="pure", backbone_layers=2, backbone_units=5),
    "no_backbone": lambda: CfC(20, 9, backbone_layers=0),
    "wired": lambda: CfC(3, AutoNCP(30, 7)),
    "strict": lambda: CfC(3, AutoNCP(30, 7), strict_wiring=True),
    "LTC": lambda: LTC(3, 19),
    "wired LTC": lambda: LTC(3, AutoNCP(30, 7), implicit_param_constraints=False),
}


@pytest.fixture(params=CELLS)
def cell(request, kernels):
    return CELLS[request.param]().rnn_cell


@pytest.fixture
def steps(monkeypatch):
    """Count the steps that the kernels ran."""
    seen = []
    run = module.Step.run

    def counted(self, *arguments):
        result = run(self, *arguments)
        seen.append(result is not None)
        return result

    monkeypatch.setattr(module.Step, "run", counted)
    return seen


def both(cell, *arguments):
    """Return the results of the quick and the plain step."""
    with torch.no_grad():
        mine = cell(*arguments)
    plain = cell(*arguments)
    assert plain[1].requires_grad
    assert not mine[1].requires_grad
    return mine, plain


@pytest.mark.parametrize("spans", ["number", "column", "flat"])
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_equals_the_plain_step(cell, batch, spans, steps):
    time = {"number": 0.3, "column": torch.rand(batch, 1), "flat": torch.rand(batch)}[spans]
    x, h = torch.randn(batch, cell.sensory_size), torch.randn(batch, cell.state_size)
    for mine, plain in zip(*both(cell, x, h, time), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=2e-6)
    assert steps
    assert all(steps)


def test_a_change_of_the_weights_is_seen(cell, steps):
    """Also one that no version counter tells of."""
    x, h = torch.randn(1, cell.sensory_size), torch.randn(1, cell.state_size)
    both(cell, x, h)
    for change in (
        lambda p: p.data.mul_(0.5),
        lambda p: setattr(p, "data", p.data * 1.5),
        lambda p: p.data.copy_(p.data + 0.1),
    ):
        for parameter in cell.parameters():
            change(parameter)
        for mine, plain in zip(*both(cell, x, h), strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-5, atol=2e-6)
    assert all(steps)


def test_a_change_of_a_setting_is_seen(kernels):
    cell = LTC(3, 8).rnn_cell
    x, h = torch.randn(1, 3), torch.randn(1, 8)
    both(cell, x, h)
    for name, value in (("ode_unfolds", 2), ("implicit_param_constraints", False), ("epsilon", 0.5)):
        setattr(cell, name, value)
        for mine, plain in zip(*both(cell, x, h), strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-5, atol=2e-6)


def pruned(*widths):
    maps = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
    return nn.Sequential(*(part for map in maps for part in (map, nn.Tanh())))


def test_a_module_in_place_of_another_is_seen(kernels, steps):
    cell = CfC(3, 8).rnn_cell
    x, h = torch.randn(1, 3), torch.randn(1, 8)
    both(cell, x, h)
    shifted = type("Shifted", (nn.Linear,), {"forward": lambda self, z: nn.Linear.forward(self, z) + 1})
    changes = [
        (lambda: setattr(cell, "time_b", nn.Linear(128, 8)), True),
        (lambda: cell.backbone.__setitem__(0, nn.Linear(11, 128)), True),
        (lambda: cell.backbone.__setitem__(1, nn.ReLU()), True),
        (lambda: cell.backbone.append(nn.Softplus()), False),
        (lambda: setattr(cell, "backbone", CfC(3, 8).rnn_cell.backbone), True),
        (lambda: setattr(cell, "backbone", pruned(11, 40, 128)), False),
        (lambda: setattr(cell, "backbone", pruned(11, 128)), True),
        (lambda: setattr(cell, "ff1", shifted(128, 8)), False),
    ]
    for change, served in changes:
        change()
        for mine, plain in zip(*both(cell, x, h), strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-5, atol=2e-6)
        assert steps[-1] is served


CHANGES = {
    "one number": (lambda: LTC(3, 8), lambda c: setattr(c, "gleak", nn.Parameter(torch.ones(1))), False),
    "a part of it": (lambda: LTC(3, 8), lambda c: setattr(c, "gleak", nn.Parameter(c.gleak.data[:1])), False),
    "turned": (lambda: LTC(3, 8), lambda c: setattr(c, "w", nn.Parameter(c.w.data.t())), False),
    "turned in place": (
        lambda: CfC(3, 8, backbone_units=8),
        lambda c: setattr(c.time_b.weight, "data", c.time_b.weight.data.t()),
        False,
    ),
    "mode": (lambda: CfC(3, 8), lambda c: setattr(c, "mode", "no_gate"), True),
    "mask": (
        lambda: CfC(3, 8, backbone_layers=0),
        lambda c: setattr(c, "sparsity_mask", (torch.rand(8, 11) > 0.5).float()),
        True,
    ),
    "mapping": (
        lambda: LTC(3, 8, input_mapping=None),
        lambda c: setattr(c, "input_w", nn.Parameter(torch.rand(3))),
        True,
    ),
    "approximation": (
        lambda: CfC(3, 8, activation="gelu"),
        lambda c: setattr(c.backbone[1], "approximate", "tanh"),
        False,
    ),
    "method": (
        lambda: CfC(3, 8),
        lambda c: setattr(c.ff1, "forward", lambda z, inner=c.ff1.forward: inner(z) + 1),
        False,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_cell_is_seen(change, kernels, steps):
    make, act, served = CHANGES[change]
    cell = make().rnn_cell
    x, h = torch.randn(1, 3), torch.randn(1, 8)
    both(cell, x, h)
    act(cell)
    for mine, plain in zip(*both(cell, x, h), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=2e-6)
    assert steps == [True, served]


def test_a_cell_of_ones_own_runs_its_own_methods(kernels):
    class Mine(CfCCell):
        def _gated(self, z, ts):
            return super()._gated(z, ts) + 1

    cell, x, h = Mine(3, 8), torch.randn(1, 3), torch.randn(1, 8)
    for mine, plain in zip(*both(cell, x, h), strict=True):
        torch.testing.assert_close(mine, plain)


def test_copies_have_steps_of_their_own(kernels, tmp_path):
    """Shallow ones and those of ``nn.DataParallel``; others and files have none."""
    cell, x, h = LTC(3, 8).rnn_cell, torch.randn(1, 3), torch.randn(1, 8)
    both(cell, x, h)
    shallow, replica = copy.copy(cell), cell._replicate_for_data_parallel()
    shallow._parameters = dict(shallow._parameters)
    shallow.w = nn.Parameter(2 * cell.w)
    for name, parameter in cell._parameters.items():
        setattr(replica, name, None if parameter is None else 2 * parameter)
    for one in (shallow, replica):
        for mine, plain in zip(*both(one, x, h), strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-5, atol=2e-6)
    assert isinstance(cell._kept.step, module.Step)
    assert copy.deepcopy(cell)._kept.step is None
    torch.save(cell, tmp_path / "cell.pt")
    assert torch.load(tmp_path / "cell.pt", weights_only=False)._kept.step is None


@pytest.mark.parametrize("hooked", [False, True])
def test_a_cell_is_freed(hooked, kernels):
    for kind in (CfC, LTC):
        layer = kind(3, 8)
        cell = layer.rnn_cell
        if hooked and kind is CfC:
            cell.ff1.register_full_backward_hook(lambda *_, cell=cell: None)
            cell.ff1.register_forward_hook(lambda *_, cell=cell: None).remove()
        with torch.no_grad():
            cell(torch.randn(1, 3), torch.randn(1, 8))
        gone = weakref.ref(cell)
        del layer, cell
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("layer", [CfC(3, 8), CfC(3, AutoNCP(12, 3)), LTC(3, 8)], ids=["CfC", "wired", "LTC"])
def test_weights_are_freed_without_the_collector(layer, kernels):
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        layer(torch.randn(1, 1, 3))
    gone = weakref.ref(next(layer.parameters()))
    gc.disable()
    try:
        del layer
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [CfC, LTC])
def test_weights_that_change_under_another_threads_step(kind, kernels):
    layer, x, stop, wrong = kind(3, 64), torch.randn(16, 3), threading.Event(), []
    weights = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        expected = layer.rnn_cell(x, torch.zeros(16, 64))[0]

    def serve():
        with torch.no_grad():
            while not stop.is_set():
                found = layer.rnn_cell(x, torch.zeros(16, 64))[0]
                if not torch.allclose(found, expected, atol=1e-5):
                    wrong.append(found)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(300):
            layer.load_state_dict(copy.deepcopy(weights), assign=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not wrong


def test_columns_of_other_memory(cell):
    x, h = torch.randn(cell.sensory_size, 4).t(), torch.randn(cell.state_size, 4).t()
    for mine, plain in zip(*both(cell, x, h), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=2e-6)


def test_a_stream_equals_the_whole_sequence(kernels):
    for layer in (CfC(3, 8), CfC(3, AutoNCP(12, 3)), LTC(3, AutoNCP(12, 3)), CfC(3, 8, mixed_memory=True)):
        x = torch.randn(2, 9, 3)
        with torch.no_grad():
            expected, end = layer(x)
            state, outputs = None, []
            for t in range(9):
                output, state = layer(x[:, t : t + 1], state)
                outputs.append(output)
        torch.testing.assert_close(torch.cat(outputs, 1), expected, rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(state, end, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["double", "hook", "off", "autocast", "training dropout", "many"])
def test_what_it_does_not_serve_takes_the_plain_step(kind, kernels, steps):
    layer = CfC(3, 8, backbone_dropout=0.5 if kind == "training dropout" else 0.0, fast=kind != "off")
    cell, batch = layer.rnn_cell, module.MOST_SAMPLES + 1 if kind == "many" else 2
    x, h = torch.randn(batch, 3), torch.randn(batch, 8)
    if kind == "double":
        cell, x, h = cell.double(), x.double(), h.double()
    seen = []
    if kind == "hook":
        cell.ff1.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        cell(x, h)
    assert not any(steps)
    assert len(seen) == (kind == "hook")


def test_wrong_shapes_raise_as_before(kernels):
    cell = CfC(3, 8).rnn_cell
    with torch.no_grad():
        for x, h in ((torch.randn(2, 3), torch.randn(2, 7)), (torch.randn(2, 3), torch.randn(1, 8))):
            with pytest.raises(RuntimeError):
                cell(x, h)
