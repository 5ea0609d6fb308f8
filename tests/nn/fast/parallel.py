"""What all ranks average are the gradients that one process alone has; for each layer of ``test_choice.py``.

A process of its own, which ends at once: a gloo group that is freed with the lock of the interpreter held can wait for
ever for its own thread (seen in torch 2.13).
"""

import copy
import os
import sys

import torch
from ncps.wirings import AutoNCP
from torch import distributed, nn

from liquid_train.nn import LTC, CfC


def check(layer: nn.Module) -> None:
    """Compare the gradients of a layer within DDP and without."""
    given = torch.randn(2, 4, 3)
    wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(layer), find_unused_parameters=True)
    wrapped(given)[0].sum().backward()
    layer(given)[0].sum().backward()
    pairs = list(zip(wrapped.module.parameters(), layer.parameters(), strict=True))
    assert sum(alone.grad is not None for _, alone in pairs) >= 3
    for mine, alone in pairs:
        assert alone.grad is None or torch.equal(mine.grad, alone.grad)


if __name__ == "__main__":
    distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
    for made in (CfC(3, 6), CfC(3, AutoNCP(12, 3)), LTC(3, AutoNCP(12, 3))):
        check(made)
    print("equal", flush=True)
    os._exit(0)
