"""What the classifier and the regressor share: building, optimising, logging."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import Metric

from liquid_train.data import Batch
from liquid_train.errors import InputError
from liquid_train.tasks.network import SequenceNetwork, build_network
from liquid_train.tasks.schedule import warmup_cosine

Stage = Literal["train", "val", "test"]


class SequenceTask(pl.LightningModule):
    """A liquid network that learns one target for each series.

    Sizes that are not given are taken from the trainer's data module and kept in the hyperparameters, so
    that a checkpoint can be loaded without the data.
    """

    size_arguments = "input_size"
    """The arguments that a person without a data module has to give."""

    def __init__(
        self,
        cell: Literal["cfc", "ltc"],
        units: int,
        wiring: dict[str, Any] | None,
        cell_options: dict[str, Any] | None,
        readout: Literal["last", "mean"],
        input_size: int | None,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        input_noise: float,
    ) -> None:
        super().__init__()
        check_rate("learning_rate", learning_rate)
        check_rate("weight_decay", weight_decay)
        check_rate("warmup", warmup, most=1.0)
        check_rate("input_noise", input_noise)
        self.save_hyperparameters()
        self.network: SequenceNetwork | None = None

    @property
    def sizes_known(self) -> bool:
        """Whether the network can be built."""
        return None not in (self.hparams["input_size"], self.outputs)

    @property
    @abstractmethod
    def outputs(self) -> int | None:
        """Outputs of the network; None while it is not known."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the scalar that training makes small."""

    @abstractmethod
    def metrics(self, stage: Stage) -> dict[str, Metric]:
        """Return what is measured in `stage`, by the name it is logged under."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Turn the network's outputs into what a person wants to know."""

    @property
    def datamodule(self) -> object:
        """The trainer's data module, or None where it was given loaders."""
        return getattr(self.trainer, "datamodule", None)

    def setup(self, stage: str) -> None:
        """Take the sizes from the data module, or compare them with it."""
        self.agree_on("input_size", "channels")

    def agree_on(self, name: str, what: str) -> None:
        """Take hyperparameter `name` from the data module if it is not set.

        Raises:
            InputError: it is set to something else.
        """
        mine, theirs = self.hparams[name], getattr(self.datamodule, name, None)
        if mine is None:
            self.hparams[name] = theirs
        elif theirs is not None and theirs != mine:
            raise InputError(
                f"model.{name}={mine}: the data has {theirs} {what}; use the data that the model was trained on, "
                "or train a new model"
            )

    def configure_model(self) -> None:
        """Build the network, once its sizes are known."""
        if self.network is not None:
            return
        channels, outputs = self.hparams["input_size"], self.outputs
        if channels is None or outputs is None:
            raise InputError(
                f"{type(self).__name__}: sizes are not known; pass {self.size_arguments} or a SeriesDataModule"
            )
        h = self.hparams
        self.network = build_network(
            h["cell"], h["units"], h["wiring"], h["cell_options"], h["readout"], channels, outputs
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return [B, K] outputs of the network."""
        assert self.network is not None, "the network is built by configure_model, when its sizes are known"
        outputs: Tensor = self.network(batch)
        return outputs

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Learn from a batch, with noise on its inputs if `input_noise` is set."""
        noise = self.hparams["input_noise"]
        if noise:
            batch = batch._replace(inputs=batch.inputs + noise * torch.randn_like(batch.inputs))
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure a validation batch."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure a test batch."""
        self._step(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the predictions for a batch."""
        return self.predict(self(batch))

    def _step(self, batch: Batch, stage: Stage) -> Tensor:
        outputs = self(batch)
        loss = self.loss(outputs, batch)
        train, size = stage == "train", len(batch.lengths)
        self.log(f"{stage}_loss", loss, on_step=False, on_epoch=True, prog_bar=train, batch_size=size)
        predictions = self.predict(outputs.detach())
        for name, metric in self.metrics(stage).items():
            metric.update(predictions, batch.targets)
            self.log(name, metric, on_step=False, on_epoch=True, prog_bar=not train, batch_size=size)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW and its schedule, which moves with every step."""
        h = self.hparams
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=h["learning_rate"], weight_decay=h["weight_decay"]
        )
        factor = warmup_cosine(self.trainer.estimated_stepping_batches, h["warmup"])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def check_rate(name: str, value: float, most: float = math.inf) -> None:
    """Require a number between 0 and another.

    Raises:
        InputError: it is none.
    """
    if not 0 <= value <= most or math.isinf(value):
        rule = f"between 0 and {most:g}" if most < math.inf else "of at least 0"
        raise InputError(f"{name}={value} must be a number {rule}")
