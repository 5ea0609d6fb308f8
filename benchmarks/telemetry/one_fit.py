"""One fit in a new interpreter: ``python -m benchmarks.telemetry.one_fit '{"batches": 20, "telemetry": {}}'``.

Prints as JSON what it took, in seconds: the import of ``liquid_telemetry`` after Lightning's, ``setup``, the median
batch and the processor time of one (both without the first third), and the end of fit. Its exporter is its own.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.telemetry.loop import Tiny
from benchmarks.telemetry.measure import scratch


class Watch(Callback):
    """Notes both clocks at the end of every batch."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Note."""
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())

    @property
    def batch(self) -> dict[str, float]:
        """The median batch, and the processor time of one."""
        wall, processor = (each[len(each) // 3 :] for each in (self.wall, self.processor))
        return {
            "batch": statistics.median(later - former for former, later in itertools.pairwise(wall)),
            "processor": (processor[-1] - processor[0]) / (len(processor) - 1),
        }


def fit(folder: Path, batches: int, telemetry: dict[str, Any] | None) -> dict[str, float]:
    """Fit one epoch, observed by a ``Telemetry`` of these options, or bare."""
    took: dict[str, float] = {}
    ours = [] if telemetry is None else [_telemetry(folder, telemetry, took)]
    watch = Watch()
    trainer = Trainer(
        max_epochs=1,
        callbacks=[*ours, watch],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(Tiny(), DataLoader(TensorDataset(torch.randn(8 * batches, 16)), batch_size=8))
    return {**took, **watch.batch, "end": time.perf_counter() - watch.wall[-1]}


def _telemetry(folder: Path, options: dict[str, Any], took: dict[str, float]) -> Callback:
    start = time.perf_counter()
    import liquid_telemetry

    kind = liquid_telemetry.Telemetry
    took["import"] = time.perf_counter() - start

    class Timed(kind):  # type: ignore[misc, valid-type]
        def setup(self, *arguments: Any, **keywords: Any) -> None:
            began = time.perf_counter()
            super().setup(*arguments, **keywords)
            took["setup"] = time.perf_counter() - began

    timed: Callback = Timed(port=0, dir=str(folder / "runs"), console=False, **options)
    return timed


def main() -> None:
    """Fit, print."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with scratch() as folder, contextlib.redirect_stderr(io.StringIO()):
        print(json.dumps(fit(folder, **json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
