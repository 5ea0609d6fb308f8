"""Regression on time series."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from liquid_train.data import Batch
from liquid_train.errors import InputError
from liquid_train.tasks.base import SequenceTask, Stage


class LiquidRegressor(SequenceTask):
    """Tells one value for each time series from the outputs of a liquid network.

    The network learns targets that are scaled to zero mean and unit variance over the training part;
    predictions [B] and errors are in the unit of the data. Logs `train_loss`, `val_loss` and `test_loss`
    (mean squared error of scaled targets) and, for each stage, `_mae` and `_rmse`.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        cell: Literal["cfc", "ltc"] = "cfc",
        units: int = 64,
        wiring: dict[str, Any] | None = None,
        cell_options: dict[str, Any] | None = None,
        readout: Literal["last", "mean"] = "last",
        input_size: int | None = None,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.1,
        input_noise: float = 0.0,
    ) -> None:
        """Build the network if its sizes are given, else when a trainer brings the data.

        Args:
            cell: `cfc` (closed-form continuous-time) or `ltc` (liquid time-constant).
            units: neurons of the layer, every one connected to every one. Not used with `wiring`.
            wiring: a wiring of `ncps.wirings` in place of `units`: its class name as `type` and its
                arguments, such as `{type: AutoNCP, units: 32, output_size: 8}`.
            cell_options: further arguments of `liquid_train.CfC` or `LTC`, such as `{backbone_units: 64}`.
            readout: whether the last output of the layer decides, or the mean over all steps.
            input_size: channels of a series; taken from the data when not given.
            learning_rate: of AdamW, at its highest.
            weight_decay: of AdamW.
            warmup: share of the run in which the learning rate rises; a cosine then takes it to zero.
            input_noise: standard deviation of Gaussian noise that is added to training inputs.
        """
        super().__init__(
            cell,
            units,
            wiring,
            cell_options,
            readout,
            input_size,
            learning_rate,
            weight_decay,
            warmup,
            input_noise,
        )
        self.register_buffer("target_mean", torch.tensor(0.0))
        self.register_buffer("target_std", torch.tensor(1.0))
        self.errors = nn.ModuleDict(
            {
                f"{stage}_{name}": metric
                for stage in ("train", "val", "test")
                for name, metric in (("mae", MeanAbsoluteError()), ("rmse", MeanSquaredError(squared=False)))
            }
        )
        if self.sizes_known:
            self.configure_model()

    @property
    def outputs(self) -> int:
        """One value."""
        return 1

    def setup(self, stage: str) -> None:
        """Take the channels and the scale of the targets from the data module.

        Raises:
            InputError: the channels differ from those of the model, or the data has classes.
        """
        if getattr(self.datamodule, "num_classes", None) is not None:
            raise InputError(
                "model=LiquidRegressor: the data has classes and no values; use LiquidClassifier"
            )
        super().setup(stage)
        scale = getattr(self.datamodule, "target_scale", None)
        if stage == "fit" and scale is not None:
            self.target_mean.fill_(scale[0])
            self.target_std.fill_(scale[1])

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean squared error of the scaled targets."""
        return F.mse_loss(outputs[:, 0], (batch.targets - self.target_mean) / self.target_std)

    def metrics(self, stage: Stage) -> dict[str, Metric]:
        """Return the mean absolute error and the root mean squared error."""
        found = {name: m for name, m in self.errors.items() if name.startswith(stage)}
        return {name: m for name, m in found.items() if isinstance(m, Metric)}

    def predict(self, outputs: Tensor) -> Tensor:
        """Return [B] values in the unit of the targets."""
        return outputs[:, 0] * self.target_std + self.target_mean
