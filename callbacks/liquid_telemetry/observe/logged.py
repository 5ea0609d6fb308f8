"""What the module has logged, read without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def callback_metrics(trainer: Trainer) -> Mapping[str, Tensor]:
    """``trainer.callback_metrics`` without what Lightning makes of it on the way.

    It turns everything that is logged for the progress bar into a number, which waits for the device each time.
    """
    results = getattr(trainer, "_results", None) or {}
    shown = [item.meta for item in results.values() if getattr(item, "meta", None) and item.meta.prog_bar]
    for meta in shown:
        meta.prog_bar = False
    try:
        return trainer.callback_metrics
    finally:
        for meta in shown:
            meta.prog_bar = True
