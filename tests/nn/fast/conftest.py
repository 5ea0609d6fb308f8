from contextlib import contextmanager

import pytest
import torch
from servers import binary

from liquid_train.nn.layer import run_fast
from liquid_train.nn.native.library import native, without_kernels


@pytest.fixture(params=["kernels", "pytorch"])
def backend(request):
    """Run a test with the kernels, and as on a machine without a compiler."""
    if request.param == "kernels":
        binary("c++")
        assert native() is not None
        yield
    else:
        with without_kernels():
            yield


@pytest.fixture
def kernels():
    binary("c++")
    assert native() is not None


@contextmanager
def _threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def threads():
    return _threads


def _run(layer, inputs, gradients, **options):
    """Return output, state and every gradient by name of a call with fresh leaves."""
    leaves = {
        name: value.clone().requires_grad_() if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
    output, hx = layer(leaves["x"], leaves["hx"], leaves["spans"], **options)
    named = {name: value for name, value in leaves.items() if isinstance(value, torch.Tensor)}
    found = gradients((output, hx), layer, *named.values())
    names = [*(name for name in found if isinstance(name, str)), *named]
    return {"output": output, "hx": hx, **dict(zip(names, found.values(), strict=True))}


@pytest.fixture
def assert_equal_paths(gradients):
    """Compare a layer's fast path with its plain one: relative to the largest entry, or 0.5: sums may cancel."""

    def check(layer, inputs, tolerance=1e-5, **options):
        results = []
        for fast in (True, False):
            layer.fast = fast
            results.append(_run(layer, inputs, gradients, **options))
        mine, plain = results
        assert mine.keys() == plain.keys()
        for name, expected in plain.items():
            if expected is None:
                assert mine[name] is None, name
                continue
            largest = expected.detach().abs().max().item() if expected.numel() else 0.0
            torch.testing.assert_close(
                mine[name],
                expected,
                rtol=0,
                atol=tolerance * max(largest, 0.5),
                msg=lambda text, name=name: f"{name}: {text}",
            )

    return check


@pytest.fixture
def calls(monkeypatch):
    """Count calls of the fast path."""
    seen = []

    def counted(*arguments):
        seen.append(arguments)
        return run_fast(*arguments)

    monkeypatch.setattr("liquid_train.nn.layer.run_fast", counted)
    return seen
