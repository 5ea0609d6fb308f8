"""A bad argument gives one line that names it, its value, the rule and the fix."""

import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP
from torch.nn.utils.rnn import pack_sequence

from liquid_train.nn import LTC, CfC, CfCCell, LTCCell, WiredCfCCell

X = torch.zeros(2, 5, 3)


def built():
    wiring = AutoNCP(12, 3)
    wiring.build(3)
    return wiring


CONSTRUCTION = {
    "mode='fast' is unknown: use one of 'default', 'pure', 'no_gate'": lambda: CfC(3, 4, mode="fast"),
    "mode='fast' is unknown": lambda: CfC(3, AutoNCP(12, 3), mode="fast"),
    "activation='elu' is unknown: use one of 'lecun_tanh', 'silu'": lambda: CfC(3, 4, activation="elu"),
    "backbone_activation='elu' is unknown": lambda: CfCCell(3, 4, backbone_activation="elu"),
    "units=0 must be a whole number of at least 1": lambda: CfC(3, 0),
    "units='4' must be a whole number": lambda: LTC(3, "4"),
    "input_size=None must be a whole number": lambda: CfC(None, 4),
    "input_size=0 must be a whole number": lambda: CfCCell(0, 4),
    "hidden_size=0 must be": lambda: CfCCell(1, 0),
    "proj_size=0 must be a whole number of at least 1": lambda: CfC(3, 4, proj_size=0),
    "backbone_layers=-1 must be": lambda: CfC(3, 4, backbone_layers=-1),
    "backbone_units=0 must be": lambda: CfC(3, 4, backbone_units=0),
    "backbone_dropout=1.5 must be a probability": lambda: CfC(3, 4, backbone_dropout=1.5),
    "backbone_units=8 with a wiring, which has no backbone": lambda: CfC(3, AutoNCP(12, 3), backbone_units=8),
    "backbone_layers=2 with a wiring": lambda: CfC(3, AutoNCP(12, 3), backbone_layers=2),
    "backbone_dropout=0.1 with a wiring": lambda: CfC(3, AutoNCP(12, 3), backbone_dropout=0.1),
    "strict_wiring=True but units=4 is no wiring": lambda: CfC(3, 4, strict_wiring=True),
    "input_size=4 but the wiring is built for 3 channels": lambda: CfC(4, built()),
    "input_size=5 but the wiring is built for 3": lambda: LTCCell(built(), 5),
    "input_size=None needs a built wiring": lambda: WiredCfCCell(None, AutoNCP(12, 3)),
    "input_mapping='afine' is unknown: use one of 'affine', 'linear', None": lambda: LTC(
        3, 4, input_mapping="afine"
    ),
    "output_mapping='none' is unknown": lambda: LTC(3, 4, output_mapping="none"),
    "ode_unfolds=0 must be": lambda: LTC(3, 4, ode_unfolds=0),
    "sparsity_mask has shape (3, 4): give one row per feature of the heads": lambda: CfCCell(
        3, 4, sparsity_mask=np.ones((3, 4))
    ),
}

CALLS = {
    "input has dtype torch.complex64: give real numbers": lambda layer: layer(X.to(torch.complex64)),
    "input has 4 channels but input_size=3": lambda layer: layer(torch.zeros(2, 5, 4)),
    "input has 1 dimensions: give 3 for a batch, or 2 for one sequence": lambda layer: layer(torch.zeros(3)),
    "timespans has shape (2, 4): give a number, or one entry per step with shape (2, 5) or (2, 5, 1)": (
        lambda layer: layer(X, timespans=torch.ones(2, 4))
    ),
    "timespans has shape (5, 2)": lambda layer: layer(X, timespans=torch.ones(5, 2)),
    "timespans has shape (5,)": lambda layer: layer(X, timespans=torch.ones(5)),
    "timespans has shape (2, 5, 3)": lambda layer: layer(X, timespans=torch.ones(2, 5, 3)),
    "timespans has shape (1, 5)": lambda layer: layer(X[0], timespans=torch.ones(1, 5)),
    "timespans is a PackedSequence but input is a Tensor": (
        lambda layer: layer(X, timespans=pack_sequence([torch.ones(5), torch.ones(5)]))
    ),
    "timespans is packed with other lengths than input": lambda layer: layer(
        pack_sequence([X[0], X[0]]), timespans=pack_sequence([torch.ones(5), torch.ones(4)])
    ),
    "input packs steps of shape (): each must have shape (C,)": lambda layer: layer(
        pack_sequence([X[0, :, 0]])
    ),
    "lengths is given with a PackedSequence": lambda layer: layer(pack_sequence([X[0]]), lengths=[5]),
    "lengths contains 6: each must be between 0 and the 5 steps of input": lambda layer: layer(
        X, lengths=[6, 1]
    ),
    "lengths contains -1": lambda layer: layer(X, lengths=torch.tensor([5, -1])),
    "lengths has shape (3,) and dtype torch.int64: give one whole number per sequence, shape (2,)": (
        lambda layer: layer(X, lengths=[1, 2, 3])
    ),
    "lengths has shape () and": lambda layer: layer(X, lengths=3),
    "lengths has shape (2,) and dtype torch.float32": lambda layer: layer(X, lengths=torch.ones(2)),
    "lengths has shape (2,) and dtype torch.bool": lambda layer: layer(X, lengths=[True, False]),
    "hx has shape (2, 5): this input needs (2, 12)": lambda layer: layer(X, torch.zeros(2, 5)),
    "hx has shape (2, 12): this input needs (12,)": lambda layer: layer(X[0], torch.zeros(2, 12)),
    "hx is a tuple but mixed_memory=False": lambda layer: layer(X, (torch.zeros(2, 12), torch.zeros(2, 12))),
}


@pytest.mark.parametrize("message", CONSTRUCTION)
def test_construction(message):
    with pytest.raises(ValueError, match=r".") as error:
        CONSTRUCTION[message]()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layer", [CfC, LTC])
@pytest.mark.parametrize("message", CALLS)
def test_call(message, layer):
    with pytest.raises(ValueError, match=r".") as error:
        CALLS[message](layer(3, AutoNCP(12, 3)))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_sizes_may_be_numpy_integers():
    assert CfC(np.int64(3), np.int32(4), proj_size=np.int64(2))(X)[0].shape == (2, 5, 2)


def test_mixed_memory_needs_a_pair():
    layer = CfC(3, 4, mixed_memory=True)
    for hx in (torch.zeros(2, 4), (torch.zeros(2, 4),)):
        with pytest.raises(ValueError, match=r"hx is not a pair but mixed_memory=True: give \(h, c\)"):
            layer(X, hx)
    output, (h, c) = layer(X, [torch.zeros(2, 4), torch.zeros(2, 4)])
    assert output.shape == (2, 5, 4)
    assert h.shape == c.shape == (2, 4)


@pytest.mark.parametrize("form", [np.array, np.ndarray.tolist])
def test_time_spans_may_be_arrays_and_lists(form):
    layer, spans = CfC(3, 4), np.random.default_rng(0).random((2, 5))
    found, expected = layer(X, timespans=form(spans)), layer(X, timespans=torch.tensor(spans))
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("kind", [CfC, LTC])
def test_an_input_that_autocast_has_lowered_does_not_lower_states_and_spans(kind):
    layer, x, spans = kind(3, 8), torch.randn(4, 60, 3).bfloat16(), torch.rand(4, 60) + 0.5
    expected, _ = layer(x.float(), timespans=spans)
    layer.fast = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, state = layer(x, timespans=spans)
    assert state.dtype == torch.float32
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-5)
