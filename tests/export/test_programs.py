"""The programs against the tasks they are made from, for every kind of network; and the comparison itself."""

from __future__ import annotations

import pytest
import torch

from liquid_train import LiquidClassifier, LiquidRegressor
from liquid_train.export.compare import ABSOLUTE, SIZES, SPANS, STEPS, MismatchError, compare
from liquid_train.export.programs import OneStep, WholeSequences
from liquid_train.export.targets import TARGETS

WIRING = {"type": "AutoNCP", "units": 12, "output_size": 3}
NETWORKS = {
    "cfc": {},
    "cfc-mean": {"readout": "mean"},
    "cfc-memory-projected": {"cell_options": {"mixed_memory": True, "proj_size": 3}, "readout": "mean"},
    "cfc-pure": {"cell_options": {"mode": "pure"}},
    "cfc-wired": {"wiring": WIRING},
    "cfc-wired-strictly": {"wiring": WIRING, "cell_options": {"strict_wiring": True, "mode": "no_gate"}},
    "ltc": {"cell": "ltc"},
    "ltc-wired-mean": {"cell": "ltc", "wiring": WIRING, "readout": "mean"},
    "ltc-memory": {"cell": "ltc", "cell_options": {"mixed_memory": True}},
}


def classifier(**options):
    torch.manual_seed(0)
    task = LiquidClassifier(units=5, input_size=2, num_classes=3, **options)
    return task.eval().requires_grad_(False)


def regressor():
    torch.manual_seed(0)
    task = LiquidRegressor(units=5, input_size=2, readout="mean").eval().requires_grad_(False)
    task.target_mean.fill_(7.0)
    task.target_std.fill_(3.0)
    return task


@pytest.mark.parametrize("network", NETWORKS)
def test_both_programs_give_the_numbers_of_every_network(network):
    task = classifier(**NETWORKS[network])
    for kind, cases in ((WholeSequences, len(SIZES) * len(SPANS)), (OneStep, STEPS * len(SPANS))):
        program = kind(task).eval()
        found = compare(task, program, lambda inputs, program=program: program(*inputs))
        assert len(found) == cases
        assert max(case.excess for case in found) < 0.5
        assert all(case.outputs > case.batch for case in found)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_target_writes_every_network(network, target, tmp_path):
    task = classifier(**NETWORKS[network])
    for kind in (WholeSequences, OneStep):
        program, path = kind(task).eval(), tmp_path / f"program{TARGETS[target].ending}"
        TARGETS[target].write(program, path)
        assert compare(task, program, TARGETS[target].load(path))


def test_a_regressors_values_are_in_the_unit_of_its_targets():
    task = regressor()
    program = OneStep(task).eval()
    (prediction, *state) = program(*program.examples(2, 1))
    assert prediction.shape == (2,)
    assert [port.name for port in program.state] == ["hidden", "total", "steps"]
    assert [tuple(value.shape) for value in state] == [(2, 5), (2, 5), (2,)]
    assert compare(task, program, lambda inputs: program(*inputs))


def test_sequences_can_go_on_step_by_step():
    """The state that the one returns is the one that the other takes."""
    task = classifier(readout="mean", cell_options={"mixed_memory": True})
    whole, step = WholeSequences(task).eval(), OneStep(task).eval()
    inputs, spans = torch.randn(2, 6, 2), torch.rand(2, 6)
    _, *state = whole(inputs[:, :5], spans[:, :5], torch.tensor([5, 5]))
    prediction, *after = step(inputs[:, 5], spans[:, 5], *state)
    expected, *expected_state = whole(inputs, spans, torch.tensor([6, 6]))
    assert torch.allclose(prediction, expected, atol=1e-6)
    for found, wanted in zip(after, expected_state, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda found: (found[0] + 3 * ABSOLUTE + 2e-4, *found[1:]), "times the tolerance"),
        (lambda found: (found[0], found[1] * 1.01), "times the tolerance"),
        (lambda found: (found[0] * torch.nan, *found[1:]), "nan"),
        (lambda found: (found[0][:, :1], *found[1:]), "in place of"),
    ],
)
def test_a_difference_is_found_and_placed(spoil, said):
    task = classifier()
    program = WholeSequences(task).eval()
    with pytest.raises(MismatchError, match=r"^sequence, batch 1, length 1, ones time spans: ") as caught:
        compare(task, program, lambda inputs: spoil(program(*inputs)))
    assert said in str(caught.value)


def test_the_state_of_a_step_is_compared_too():
    """A program that forgets its state gives right numbers only once."""
    task = classifier()
    program = OneStep(task).eval()

    def forget(inputs):
        return program(*inputs[:2], torch.zeros_like(inputs[2]))

    with pytest.raises(MismatchError, match="length 2, ones"):
        compare(task, program, forget)
