"""The cells' equations: known answers, gradients, time spans and precision."""

import math

import pytest
import torch
from ncps.wirings import AutoNCP, FullyConnected, Wiring
from torch.autograd import gradcheck

from liquid_train.nn import CfCCell, LTCCell, MemoryCell, WiredCfCCell

CELLS = {
    "default": lambda: CfCCell(2, 3, backbone_units=4),
    "pure": lambda: CfCCell(2, 3, "pure", backbone_units=4),
    "no_gate": lambda: CfCCell(2, 3, "no_gate", "gelu", 4, 2),
    "wired": lambda: WiredCfCCell(2, AutoNCP(7, 2)),
    "strict": lambda: WiredCfCCell(2, AutoNCP(7, 2), strict_wiring=True),
    "ltc": lambda: LTCCell(AutoNCP(7, 2), 2, ode_unfolds=3),
    "ltc_implicit": lambda: LTCCell(FullyConnected(3, 2), 2, implicit_param_constraints=True),
}


@pytest.fixture(params=CELLS)
def cell(request):
    return CELLS[request.param]().double()


def step(cell, B=2):
    return torch.randn(B, cell.sensory_size).double(), torch.randn(B, cell.state_size).double()


def test_gradcheck(cell):
    x, h = (part.requires_grad_() for part in step(cell))
    spans = torch.rand(2, 1).double().requires_grad_()
    parameters = dict(cell.named_parameters())

    def run(x, h, spans, *values):
        return torch.func.functional_call(cell, dict(zip(parameters, values, strict=True)), (x, h, spans))

    assert gradcheck(run, (x, h, spans, *parameters.values()))


def test_memory_cell_gradcheck():
    cell = MemoryCell(2, 3).double()
    x, h, c = torch.randn(2, 2), torch.randn(2, 3), torch.randn(2, 3)
    assert gradcheck(lambda x, h, c: cell(x, (h, c)), [part.double().requires_grad_() for part in (x, h, c)])


def test_time_spans_of_a_batch_are_one_per_sample(cell):
    x, h = step(cell, 3)
    spans = torch.tensor([0.5, 1.0, 2.0]).double()
    column = cell(x, h, spans.unsqueeze(1))
    flat = cell(x, h, spans)
    for row in range(3):
        single = cell(x[row : row + 1], h[row : row + 1], float(spans[row]))
        for mine, flat_too, expected in zip(column, flat, single, strict=True):
            torch.testing.assert_close(mine[row], expected[0])
            assert torch.equal(mine, flat_too)


def test_a_number_or_a_scalar_spans_the_whole_batch(cell):
    x, h = step(cell)
    for span in (2, 2.0, torch.tensor(2), torch.tensor(2.0)):
        assert torch.equal(cell(x, h, span)[1], cell(x, h, torch.full((2, 1), 2.0))[1])
    assert torch.equal(cell(x, h)[1], cell(x, h, 1.0)[1])


def test_wrong_arguments_of_a_step(cell):
    x, h = step(cell)
    with pytest.raises(ValueError, match=r"has shape \(5,\): give a number, or one entry per sample"):
        cell(x, h, torch.ones(5))
    with pytest.raises(ValueError, match=r"input has 9 channels but input_size=2"):
        cell(torch.ones(2, 9), h)


def test_cfc_default_gates_two_targets_by_time():
    cell = CfCCell(1, 1, backbone_layers=0).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.ff1.bias.fill_(0.3)
        cell.ff2.bias.fill_(-0.7)
        cell.time_a.bias.fill_(0.5)
        cell.time_b.bias.fill_(-0.2)
    gate = 1 / (1 + math.exp(-(0.5 * 3.0 - 0.2)))
    expected = math.tanh(0.3) * (1 - gate) + math.tanh(-0.7) * gate
    output, state = cell(torch.ones(1, 1).double(), torch.ones(1, 1).double(), 3.0)
    assert output is state
    assert output.item() == pytest.approx(expected, rel=1e-14)
    cell.mode = "no_gate"
    output, _ = cell(torch.ones(1, 1).double(), torch.ones(1, 1).double(), 3.0)
    assert output.item() == pytest.approx(math.tanh(0.3) + math.tanh(-0.7) * gate, rel=1e-14)


def test_cfc_pure_decays_to_a():
    cell = CfCCell(1, 1, "pure", backbone_layers=0).double()
    with torch.no_grad():
        cell.ff1.weight.zero_()
        cell.ff1.bias.fill_(-0.4)
        cell.w_tau.fill_(-0.1)
        cell.A.fill_(2.0)
    x = h = torch.ones(1, 1).double()
    expected = -2.0 * math.exp(-1.5 * (0.1 + 0.4)) * -0.4 + 2.0
    assert cell(x, h, 1.5)[0].item() == pytest.approx(expected, rel=1e-14)
    assert cell(x, h, 1e6)[0].item() == 2.0


def test_ltc_without_synapses_leaks_exponentially():
    wiring = Wiring(1)
    wiring.set_output_dim(1)
    wiring.build(1)
    cell = LTCCell(wiring, ode_unfolds=50, output_mapping=None, epsilon=0.0).double()
    with torch.no_grad():
        cell.cm.fill_(0.5)
        cell.gleak.fill_(0.25)
        cell.vleak.fill_(-0.2)
    v, _ = cell(torch.ones(1, 1).double(), torch.ones(1, 1).double(), 3.0)
    factor = 0.5 / (0.5 + 3.0 / 50 * 0.25)
    assert v.item() == pytest.approx(-0.2 + 1.2 * factor**50, rel=1e-12)
    assert factor**50 == pytest.approx(math.exp(-3.0 * 0.25 / 0.5), rel=0.03)


def test_ltc_approaches_the_solution_of_its_equation():
    """Ten times the unfolds leave a tenth of the distance to a fine solution of the differential equation."""
    cell = LTCCell(AutoNCP(8, 2), 2, epsilon=0.0, input_mapping=None).double()
    x, v = torch.randn(1, 2).double(), torch.randn(1, 8).double()

    def derivative(v):
        def synapses(u, prefix, mask):
            w, mu, sigma, erev = (getattr(cell, prefix + name) for name in ("w", "mu", "sigma", "erev"))
            g = mask * w * torch.sigmoid(sigma * (u.T - mu))
            return (g * (erev - v)).sum(0)

        current = cell.gleak * (cell.vleak - v) + synapses(v, "", cell.sparsity_mask)
        return (current + synapses(x, "sensory_", cell.sensory_sparsity_mask)) / cell.cm

    with torch.no_grad():
        fine, d = v, 1 / 2000
        for _ in range(2000):  # the midpoint rule
            fine = fine + d * derivative(fine + d / 2 * derivative(fine))
        errors = []
        for unfolds in (20, 200):
            cell.ode_unfolds = unfolds
            errors.append((cell(x, v, 1.0)[1] - fine).abs().max().item())
    assert errors[0] < 0.05
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.2)


def test_ltc_over_two_half_steps_equals_one_with_as_many_unfolds():
    whole, half = LTCCell(AutoNCP(8, 2), 2).double(), LTCCell(AutoNCP(8, 2), 2, ode_unfolds=3).double()
    half.load_state_dict(whole.state_dict())
    x, v = step(whole)
    spans = torch.rand(2, 1).double()
    middle = half(x, v, spans / 2)[1]
    torch.testing.assert_close(half(x, middle, spans / 2)[1], whole(x, v, spans)[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("span", [0.0, 1e-45, 1e-30])
def test_ltc_over_no_time_keeps_its_state(span):
    cell = LTCCell(FullyConnected(3), 2)
    x, v = torch.randn(2, 2), torch.randn(2, 3)
    elapsed = torch.tensor([[span], [1.0]], requires_grad=True)
    _, new = cell(x, v, elapsed)
    torch.testing.assert_close(new[0], v[0])
    torch.testing.assert_close(new[1], cell(x[1:], v[1:], 1.0)[1][0])
    new.sum().backward()
    assert torch.isfinite(elapsed.grad).all()
    assert elapsed.grad[0] != 0
    assert all(torch.isfinite(parameter.grad).all() for parameter in (cell.w, cell.mu, cell.cm))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_one_dtype_throughout(cell, dtype):
    cell = cell.to(dtype)
    x, h = step(cell)
    output, state = cell(x.to(dtype), h.to(dtype), torch.rand(2).double())
    assert output.dtype == state.dtype == dtype


def test_follows_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        for build in CELLS.values():
            cell = build()
            assert {value.dtype for value in cell.state_dict().values()} == {torch.float64}
            assert cell(*step(cell))[0].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
