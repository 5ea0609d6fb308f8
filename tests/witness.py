"""A callback that testifies: everything that training has moved, when it is over."""

import random

import numpy as np
import torch
from lightning.pytorch import Callback


class Witness(Callback):
    """Keeps the last run's weights, optimizers, logged values, losses and random states in ``Witness.last``."""

    last = None

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].clone())

    def on_fit_end(self, trainer, pl_module):
        name, keys, *position = np.random.get_state()
        Witness.last = {
            "weights": pl_module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "losses": torch.stack(self.losses),
            "logged": dict(trainer.callback_metrics),
            "python": random.getstate(),
            "numpy": (name, keys.tolist(), position),
            "torch": torch.get_rng_state(),
        }


def differences(one, other, at=""):
    """Where two testimonies differ, to the last bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in one.keys() | other.keys()
            for found in differences(one.get(key), other.get(key), f"{at}/{key}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for key, pair in pairs for found in differences(*pair, f"{at}/{key}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
        return [] if same and torch.equal(one.isnan(), other.isnan()) else [at]
    return [] if type(one) is type(other) and one == other else [at]
