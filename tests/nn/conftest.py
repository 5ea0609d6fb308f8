import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP

from liquid_train.nn import LTC, CfC

LAYERS = {
    "CfC": (CfC, ncps.torch.CfC, lambda: 6),
    "WiredCfC": (CfC, ncps.torch.CfC, lambda: AutoNCP(12, 3)),
    "LTC": (LTC, ncps.torch.LTC, lambda: 6),
    "WiredLTC": (LTC, ncps.torch.LTC, lambda: AutoNCP(12, 3)),
}


def _flat(hx):
    return (hx,) if isinstance(hx, torch.Tensor) else tuple(hx)


def _drive(layer, x, hx=None, spans=None):
    """Run the cells of an ncps layer by hand: x [B, T, C], spans [B, T, 1]; its own loop fails on batches of spans."""
    mixed = layer.use_mixed
    if hx is None:
        zeros = x.new_zeros(x.shape[0], layer.state_size)
        hx = (zeros, zeros) if mixed else zeros
    h, c = hx if mixed else (hx, None)
    outputs = []
    for t in range(x.shape[1]):
        if mixed:
            h, c = layer.lstm(x[:, t], (h, c))
        out, h = layer.rnn_cell(x[:, t], h, 1.0 if spans is None else spans[:, t])
        outputs.append(layer.fc(out) if hasattr(layer, "fc") else out)
    outputs = torch.stack(outputs, 1)
    return outputs if layer.return_sequences else outputs[:, -1], (h, c) if mixed else h


def _gradients(result, layer, *leaves):
    """Gradients of a fixed random weighting of outputs and states, by parameter name and of the given leaves."""
    output, hx = result
    generator = torch.Generator().manual_seed(7)
    loss = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum()
        for part in (output, *_flat(hx))
    )
    named = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, (*named.values(), *leaves), allow_unused=True)
    return dict(zip((*named, *range(len(leaves))), gradients, strict=True))


@pytest.fixture(params=LAYERS)
def layers(request):
    """Return functions that build our layer and ncps'."""
    ours, theirs, units = LAYERS[request.param]
    return (
        lambda **options: ours(3, units(), **options),
        lambda **options: theirs(3, units(), **options),
    )


@pytest.fixture
def drive():
    return _drive


@pytest.fixture
def gradients():
    return _gradients


@pytest.fixture
def assert_same():
    """Compare two results of a layer: the output and every part of the state."""

    def check(ours, theirs, **tolerance):
        for mine, other in zip((ours[0], *_flat(ours[1])), (theirs[0], *_flat(theirs[1])), strict=True):
            torch.testing.assert_close(mine, other, **tolerance)

    return check


@pytest.fixture
def assert_parity(assert_same):
    """Compare our layer with a reference's in outputs, states and every gradient by name.

    Each of ``ours`` and ``theirs`` is (layer, result, leaves).
    """

    def check(ours, theirs, **tolerance):
        assert_same(ours[1], theirs[1], **tolerance)
        mine, other = _gradients(ours[1], ours[0], *ours[2]), _gradients(theirs[1], theirs[0], *theirs[2])
        assert mine.keys() == other.keys()
        for name in mine:
            if other[name] is None:
                assert mine[name] is None, name
                continue
            torch.testing.assert_close(
                mine[name], other[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance
            )

    return check


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
