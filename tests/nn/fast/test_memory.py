"""What a call keeps for its backward pass grows by a stated number of bytes, and what it frees stays at hand."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from ncps.wirings import AutoNCP
from torch.autograd.graph import saved_tensors_hooks

from liquid_train.nn import LTC, CfC

B, C, H, K = 4, 3, 16, 40


def kept(layer, T):
    """Return the bytes of all storages that a call keeps, those of parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in (*layer.parameters(), *layer.buffers())}
    storages = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = (storage.nbytes(), storage)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        layer(torch.randn(B, T, C))
    return sum(size for size, _ in storages.values())


def per_step(layer):
    """Return the bytes per step and sample, the same over any length."""
    first, second, third = (kept(layer, T) for T in (32, 64, 128))
    assert third - second == 2 * (second - first)
    return (second - first) / (32 * B)


def test_cfc(backend):
    """Input, state, backbone, and what gate and targets were."""
    layer = CfC(C, H, backbone_units=K)
    assert per_step(layer) == 4 * (C + H + K + 3 * H)


@pytest.mark.parametrize("units", [H, "AutoNCP"])
def test_ltc(units, kernels):
    """Input before and after its mapping, state: everything within a step is computed again."""
    layer = LTC(C, AutoNCP(H, 4) if units == "AutoNCP" else units)
    assert per_step(layer) == 4 * (2 * C + H)
    layer.fast = False
    assert per_step(layer) > 40 * 4 * (2 * C + H)


FAULTS = """
import resource, torch
from liquid_train.nn import CfC
torch.set_num_threads(1)
layer, x = CfC(6, 64), torch.randn(128, 32, 6)
for step in range(40):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    layer(x)[0].sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what other C libraries do is theirs to say")
@pytest.mark.parametrize("allowed", ["1", "0"])
def test_pages_stay(allowed):
    """A step frees 1,500 pages with kernels and more without: the next one must not ask for them anew."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["LIQUID_TRAIN_NATIVE"] = allowed
    faults = subprocess.run(
        [sys.executable, "-c", FAULTS], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert int(faults) < 30 * 150
