"""A training job that goes wrong as it is told.

    python job.py MODEL [--at PLACE] [--do ACT] [--from EPOCH] [--epochs N] [--batches N] [--rank N] ...

It trains a tiny model named MODEL under telemetry. At PLACE, from EPOCH on, rank N does ACT once, and notes the time in
the file ``fault``.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from liquid_telemetry import Telemetry

PAUSE = 0.02
FAULT, GO_ON = Path("fault"), Path("go-on")


def _hang() -> None:
    while not GO_ON.exists():
        time.sleep(0.05)


def _deadlock() -> None:
    """Wait in C for a lock, with that of the interpreter; no signal ends such a wait."""
    mutex = ctypes.create_string_buffer(256)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)


def _raise(error: BaseException) -> None:
    raise error


ACTS = {
    "raise": lambda: _raise(ValueError("the shapes do not match")),
    "memory": lambda: _raise(MemoryError("no room for the activations")),
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": _hang,
    "hang-with-gil": _deadlock,
    "nan": lambda: None,
    "nothing": lambda: None,
}


class Fault:
    """What goes wrong, where and when; once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.done = False

    def at(self, place: str, epoch: int = 0) -> bool:
        """Do it if this is the place; returns whether it is."""
        options = self.options
        if self.done or place != options.at or epoch < options.first or _rank() != options.rank:
            return False
        self.done = True
        FAULT.write_text(str(time.time()))
        ACTS[options.do]()
        return True


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class Numbers(Dataset[torch.Tensor]):
    """Random numbers; a worker may go wrong here."""

    def __init__(self, count: int, fault: Fault | None = None) -> None:
        self.rows, self.fault = torch.randn(count, 4), fault

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.fault is not None and index > len(self.rows) // 2:
            self.fault.at("worker", self.fault.options.first)
        return self.rows[index]


class Data(LightningDataModule):
    """Batches of two."""

    def __init__(self, options: argparse.Namespace, fault: Fault) -> None:
        super().__init__()
        self.options, self.fault = options, fault

    def setup(self, stage: str) -> None:
        self.fault.at("datamodule.setup")

    def train_dataloader(self) -> Any:
        workers = 1 if self.options.at == "worker" else 0
        return DataLoader(Numbers(2 * self.options.batches, self.fault), batch_size=2, num_workers=workers)

    def val_dataloader(self) -> Any:
        return DataLoader(Numbers(4), batch_size=2)


class Model(LightningModule):
    """A linear layer that goes wrong."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.layer, self.fault = torch.nn.Linear(4, 1), fault

    def setup(self, stage: str) -> None:
        self.fault.at("setup")

    def configure_optimizers(self) -> Any:
        self.fault.at("configure_optimizers")
        return torch.optim.SGD(self.parameters(), 0.01)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        time.sleep(PAUSE)
        loss: torch.Tensor = self.layer(batch).square().mean()
        if (
            index >= 3
            and self.fault.at("training_step", self.current_epoch)
            and self.fault.options.do == "nan"
        ):
            return loss + float("nan")
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val_loss", self.layer(batch).square().mean(), sync_dist=False)
        if not self.trainer.sanity_checking:
            self.fault.at("validation_step", self.current_epoch)


class Another(Callback):
    """A callback of the user's that goes wrong."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.fault.at("callback", trainer.current_epoch)

    def on_exception(self, *_: Any) -> None:
        if self.fault.options.again:
            raise RuntimeError("and this callback fails, too")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--at", default="nowhere")
    parser.add_argument("--do", choices=sorted(ACTS), default="raise")
    parser.add_argument("--from", dest="first", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="the other callback raises in on_exception")
    parser.add_argument("--stop-on-nonfinite", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Train."""
    options = parse(arguments)
    torch.set_num_threads(1)
    fault = Fault(options)
    telemetry = Telemetry(
        model_name=options.model, port=0, stop_on_nonfinite=options.stop_on_nonfinite, console=False
    )
    Trainer(
        max_epochs=options.epochs,
        callbacks=[Another(fault), telemetry],
        accelerator="cpu",
        strategy=options.strategy,
        devices=options.devices,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Model(fault), datamodule=Data(options, fault))


if __name__ == "__main__":
    main(sys.argv[1:])
