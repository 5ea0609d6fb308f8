"""Classification of time series."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from liquid_train.data import Batch
from liquid_train.errors import InputError
from liquid_train.tasks.base import SequenceTask, Stage


class LiquidClassifier(SequenceTask):
    """Tells the class of a time series from the outputs of a liquid network.

    Logs `train_loss`, `train_acc`, `val_loss`, `val_acc`, `test_loss` and `test_acc`. Predictions are
    probabilities [B, classes].
    """

    size_arguments = "input_size and num_classes"

    def __init__(
        self,
        cell: Literal["cfc", "ltc"] = "cfc",
        units: int = 64,
        wiring: dict[str, Any] | None = None,
        cell_options: dict[str, Any] | None = None,
        readout: Literal["last", "mean"] = "last",
        input_size: int | None = None,
        num_classes: int | None = None,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.1,
        input_noise: float = 0.0,
        label_smoothing: float = 0.0,
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
            num_classes: number of classes; taken from the data when not given.
            learning_rate: of AdamW, at its highest.
            weight_decay: of AdamW.
            warmup: share of the run in which the learning rate rises; a cosine then takes it to zero.
            input_noise: standard deviation of Gaussian noise that is added to training inputs.
            label_smoothing: share of the training target that is spread evenly over all classes.
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
        self.accuracy = nn.ModuleDict()
        if self.sizes_known:
            self.configure_model()

    @property
    def outputs(self) -> int | None:
        """Number of classes."""
        classes: int | None = self.hparams["num_classes"]
        return classes

    def setup(self, stage: str) -> None:
        """Take the sizes from the data module, or compare them with it.

        Raises:
            InputError: they differ, or the data is not for classification.
        """
        super().setup(stage)
        if getattr(self.datamodule, "num_classes", 0) is None:
            raise InputError("model=LiquidClassifier: the data has no classes; use LiquidRegressor for it")
        self.agree_on("num_classes", "classes")

    def configure_model(self) -> None:
        """Build the network and the accuracies."""
        super().configure_model()
        for stage in ("train", "val", "test"):
            name = f"{stage}_acc"
            if name not in self.accuracy:
                self.accuracy[name] = MulticlassAccuracy(self.hparams["num_classes"], average="micro")

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy; labels are smoothed in training only."""
        smoothing = self.hparams["label_smoothing"] if self.training else 0.0
        return F.cross_entropy(outputs, batch.targets, label_smoothing=smoothing)

    def metrics(self, stage: Stage) -> dict[str, Metric]:
        """Return the accuracy: the share of series whose most probable class is theirs."""
        name = f"{stage}_acc"
        accuracy = self.accuracy[name]
        assert isinstance(accuracy, Metric)
        return {name: accuracy}

    def predict(self, outputs: Tensor) -> Tensor:
        """Return [B, classes] probabilities."""
        return outputs.softmax(-1)
