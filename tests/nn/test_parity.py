"""Same outputs, final states and gradients, by name, as ncps.torch 1.0.1, over a grid."""

import ncps.torch
import pytest
import torch
from ncps.wirings import NCP, AutoNCP, FullyConnected, Random

from liquid_train.nn import LTC, CfC

EXACT = {"rtol": 1e-10, "atol": 1e-12}
MODES = ("default", "pure", "no_gate")
LAYOUTS = ("batch_first", "time_first", "one_sequence")
WIRINGS = {
    "AutoNCP": lambda: AutoNCP(12, 3),
    "NCP": lambda: NCP(5, 4, 2, 3, 2, 3, 2),
    "FullyConnected": lambda: FullyConnected(6),
    "no_self": lambda: FullyConnected(6, self_connections=False),
    "Random": lambda: Random(7, sparsity_level=0.4),
}


def pair(ours, theirs, units, **options):
    """Build both layers in float64 with the weights of ncps'."""
    theirs = theirs(3, units(), **options).double()
    ours = ours(3, units(), **options).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def leaves(layer, B, T, mixed, spans):
    """Return input, states and time spans as leaves of a graph, batch first."""
    made = [torch.randn(B, T, 3, dtype=torch.float64)]
    made += [torch.randn(B, layer.state_size, dtype=torch.float64) for _ in range(1 + mixed)]
    if spans:
        made.append(torch.rand(B, T, 1, dtype=torch.float64) * 2)
    return [leaf.requires_grad_() for leaf in made]


def to_layout(layout, x, hx, spans, flat_spans):
    """Bring batch-first arguments to a layout."""
    if layout == "time_first":
        x, spans = x.transpose(0, 1), None if spans is None else spans.transpose(0, 1)
    if layout == "one_sequence":
        x, hx = x[0], tuple(h[0] for h in hx)
        spans = None if spans is None else spans[0]
    if spans is not None and flat_spans:
        spans = spans.squeeze(-1)
    return x, hx if len(hx) == 2 else hx[0], spans


def to_batch_first(layout, result, sequences):
    """Bring a result in some layout to batch first."""
    output, hx = result
    hx = hx if isinstance(hx, tuple) else (hx,)
    if layout == "time_first" and sequences:
        output = output.transpose(0, 1)
    if layout == "one_sequence":
        output, hx = output.unsqueeze(0), tuple(h.unsqueeze(0) for h in hx)
    return output, hx


def check(assert_parity, drive, pair_, layout, spans, flat_spans=False):
    ours, theirs = pair_
    B = 1 if layout == "one_sequence" else 2
    mixed = ours.use_mixed
    mine = leaves(ours, B, 4, mixed, spans)
    other = [leaf.detach().clone().requires_grad_() for leaf in mine]
    states = slice(1, 2 + mixed)

    ours.batch_first = layout == "batch_first"
    x, hx, time = to_layout(layout, mine[0], tuple(mine[states]), mine[-1] if spans else None, flat_spans)
    result = to_batch_first(layout, ours(x, hx, time), ours.return_sequences)
    hx = tuple(other[states]) if mixed else other[1]
    expected = drive(theirs, other[0], hx, other[-1]) if spans else theirs(other[0], hx)
    expected = to_batch_first("batch_first", expected, theirs.return_sequences)
    assert_parity((ours, result, mine), (theirs, expected, other), **EXACT)


@pytest.mark.parametrize("spans", ["none", "flat", "column"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
@pytest.mark.parametrize("units", [1, 5])
@pytest.mark.parametrize("mode", MODES)
def test_plain_cfc(mode, units, mixed, layout, spans, assert_parity, drive):
    made = pair(CfC, ncps.torch.CfC, lambda: units, mode=mode, mixed_memory=mixed, backbone_units=9)
    check(assert_parity, drive, made, layout, spans != "none", spans == "flat")


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("activation", ["lecun_tanh", "silu", "relu", "tanh", "gelu"])
@pytest.mark.parametrize("mode", MODES)
def test_backbone(mode, activation, layers, assert_parity, drive):
    options = {"mode": mode, "activation": activation, "backbone_layers": layers, "backbone_units": 7}
    check(assert_parity, drive, pair(CfC, ncps.torch.CfC, lambda: 4, **options), "batch_first", spans=True)


@pytest.mark.parametrize("sequences", [True, False], ids=["all", "last"])
@pytest.mark.parametrize("units", [lambda: 5, *WIRINGS.values()], ids=["plain", *WIRINGS])
@pytest.mark.parametrize("spans", [False, True], ids=["", "spans"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_projection(layout, spans, units, sequences, assert_parity, drive):
    made = pair(CfC, ncps.torch.CfC, units, proj_size=2, return_sequences=sequences)
    check(assert_parity, drive, made, layout, spans)


@pytest.mark.parametrize("spans", [False, True], ids=["", "spans"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wiring", WIRINGS)
def test_wired_cfc(wiring, mode, mixed, layout, spans, assert_parity, drive):
    made = pair(CfC, ncps.torch.CfC, WIRINGS[wiring], mode=mode, mixed_memory=mixed)
    check(assert_parity, drive, made, layout, spans)


@pytest.mark.parametrize("spans", [False, True], ids=["", "spans"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
@pytest.mark.parametrize("units", [4, *WIRINGS])
def test_ltc(units, implicit, mixed, layout, spans, assert_parity, drive):
    build = WIRINGS.get(units, lambda: units)
    made = pair(LTC, ncps.torch.LTC, build, implicit_param_constraints=implicit, mixed_memory=mixed)
    check(assert_parity, drive, made, layout, spans)


@pytest.mark.parametrize("output_mapping", ["affine", "linear", None])
@pytest.mark.parametrize("input_mapping", ["affine", "linear", None])
@pytest.mark.parametrize("unfolds", [1, 4])
@pytest.mark.parametrize("sequences", [True, False], ids=["all", "last"])
def test_ltc_mappings(input_mapping, output_mapping, unfolds, sequences, assert_parity, drive):
    options = {"input_mapping": input_mapping, "output_mapping": output_mapping, "ode_unfolds": unfolds}
    made = pair(LTC, ncps.torch.LTC, WIRINGS["AutoNCP"], return_sequences=sequences, epsilon=1e-2, **options)
    check(assert_parity, drive, made, "batch_first", spans=True)


def test_ltc_outputs_of_motor_neurons(assert_parity, drive):
    made = pair(LTC, ncps.torch.LTC, lambda: FullyConnected(6, 2))
    assert made[0].output_size == 2
    check(assert_parity, drive, made, "batch_first", spans=True)


@pytest.mark.parametrize("layer", ["CfC", "LTC"])
@pytest.mark.parametrize("units", [16, "AutoNCP"])
def test_single_precision_over_longer_sequences(layer, units, assert_parity):
    build = WIRINGS.get(units, lambda: units)
    theirs = getattr(ncps.torch, layer)(3, build())
    ours = {"CfC": CfC, "LTC": LTC}[layer](3, build())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(8, 40, 3)
    assert_parity((ours, ours(x), ()), (theirs, theirs(x), ()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("explicit", [True, False])
def test_clipped_constraints(explicit):
    options = {"implicit_param_constraints": not explicit}
    ours, theirs = pair(LTC, ncps.torch.LTC, lambda: 4, **options)
    with torch.no_grad():
        for parameter in (*ours.parameters(), *theirs.parameters()):
            if parameter.requires_grad:
                parameter.sub_(0.5)
    ours.apply_weight_constraints()
    theirs.rnn_cell.apply_weight_constraints()
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert (ours.rnn_cell.w >= 0).all() == explicit
