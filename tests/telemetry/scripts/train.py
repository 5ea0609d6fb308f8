"""Train a tiny model on two ranks, or fail as asked; run as ``train.py '{"strategy": "ddp", …}'``."""

import ctypes
import json
import os
import signal
import sys
import time
import warnings
from datetime import timedelta

import torch

warnings.simplefilter("ignore")

options = json.loads(sys.argv[1])
package = options.get("package", "lightning.pytorch")
if package == "pytorch_lightning":
    import pytorch_lightning as pl
else:
    import lightning.pytorch as pl

from liquid_telemetry import OpenTelemetrySpans, PrometheusMetrics, StructlogEvents, Telemetry  # noqa: E402
from liquid_telemetry.observe import identity  # noqa: E402


def fail(where):
    rank = options.get("rank", -1)
    if options.get("fails") == where and rank in (-1, int(os.environ.get("LOCAL_RANK", "0"))):
        raise ValueError("as asked")


def die(module):
    """End this rank, or press Ctrl-C: the terminal sends that to every process."""
    if module.global_rank == options["rank"]:
        if options["dies"] == "interrupt":
            os.killpg(0, signal.SIGINT)
            time.sleep(60)
        how = {
            "segfault": lambda: ctypes.string_at(0),
            "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "exit": lambda: os._exit(3),
        }
        time.sleep(0.5)  # the other rank waits in a collective; the exporter has seen both
        how[options["dies"]]()


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def setup(self, stage):
        fail("setup")

    def training_step(self, batch, batch_idx):
        if options.get("slow") == self.global_rank:
            time.sleep(0.03)
        if self.global_step == 2:
            fail("training_step")
            if "dies" in options:
                die(self)
        loss = torch.nn.functional.cross_entropy(self.linear(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True, sync_dist="slow" not in options)
        return loss

    def on_train_epoch_end(self):
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(torch.ones(1))  # hangs if a rank is one collective ahead

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self.linear(batch[0]).argmax(-1) == batch[1]).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Greedy(pl.Callback):
    def on_exception(self, *_):
        raise RuntimeError("mine")


class Data(pl.LightningDataModule):
    def setup(self, stage):
        fail("data")

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(24, 4, generator=generator), torch.randint(3, (24,), generator=generator)
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows), batch_size=4)

    val_dataloader = train_dataloader


def main():
    pl.seed_everything(0)
    chosen = {
        "telemetry": lambda: [Telemetry(port=options.get("port", 0))],
        "all": lambda: [
            StructlogEvents(),
            PrometheusMetrics(port=0),
            OpenTelemetrySpans(),
            Telemetry(port=0),
        ],
        "greedy": lambda: [Greedy(), Telemetry(port=0)],
        "none": list,
    }[options.get("callbacks", "telemetry")]()
    if options.get("only", rank := int(os.environ.get("LOCAL_RANK", "0"))) != rank:
        chosen = []
    if "patience" in options:
        identity._PATIENCE = timedelta(seconds=options["patience"])
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=options.get("devices", 2),
        num_nodes=options.get("nodes", 1),
        strategy=options.get("strategy", "auto"),
        max_epochs=2,
        callbacks=chosen,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=options.get("checkpoints", False),
        use_distributed_sampler=True,
    )
    model = Model()
    try:
        trainer.fit(model, datamodule=Data())
    except RuntimeError:
        if "swallow" not in options:
            raise
        sys.exit(options["swallow"])
    if "weights" in options and trainer.is_global_zero:
        torch.save([model.state_dict(), torch.get_rng_state()], options["weights"])


if __name__ == "__main__":
    main()
