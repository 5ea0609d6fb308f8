"""A real fit that learns until its training labels are swapped; each epoch after that keeps 100 MB more.

python degrading.py EPOCH
"""

import sys
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[1]))

import lightning.pytorch as pl  # noqa: E402
import torch  # noqa: E402
from tiny import fit  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from liquid_telemetry import Telemetry  # noqa: E402

KEPT = 100_000_000
MOST = 8


class Degrading(pl.LightningModule):
    """Tells positive numbers from negative ones, until it is taught the opposite."""

    def __init__(self, until: int) -> None:
        super().__init__()
        self.until, self.kept = until, []
        self.linear = nn.Linear(1, 2)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        time.sleep(0.02)
        x, y = batch
        return F.cross_entropy(self.linear(x), y if self.current_epoch < self.until else 1 - y)

    def on_train_epoch_end(self) -> None:
        if self.until <= self.current_epoch and len(self.kept) < MOST:
            self.kept.append(torch.ones(KEPT, dtype=torch.uint8))

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_acc", (self.linear(x).argmax(-1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 32).unsqueeze(1)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8)
    made = {"train_dataloader": lambda self: loader, "val_dataloader": lambda self: loader}
    data = type("Data", (pl.LightningDataModule,), made)()
    fit(Telemetry(port=0), model=Degrading(int(sys.argv[1])), data=data, max_epochs=100_000)
