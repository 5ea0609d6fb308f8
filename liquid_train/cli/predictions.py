"""Predictions as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def write_predictions(predictions: Sequence[Any], path: Path, classes: Sequence[str] | None) -> bool:
    """Write one line for each series, in their order.

    Args:
        predictions: what `predict_step` returned for each batch.
        path: the CSV file.
        classes: names of the columns, if they are known.

    Returns:
        Whether there is a file: only tensors of [B] or [B, K] make a table.
    """
    if not predictions or not all(isinstance(p, torch.Tensor) and p.ndim in (1, 2) for p in predictions):
        return False
    table = torch.cat(list(predictions)).float().cpu().numpy()
    columns = table.reshape(len(table), -1).shape[1]
    names = classes if classes is not None and len(classes) == columns else [f"y{i}" for i in range(columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, table, fmt="%.6g", delimiter=",", header=",".join(names), comments="")
    return True
