"""Training whose every step takes a known time on a clock of its own.

One training batch of two samples takes 8.375 s: data 1, transfer 0.25, forward 1, backward 2, optimizer 4 and 0.125 of
the model's own. A validation batch takes 9.25 s: data 1, transfer 0.25, step 8. A checkpoint takes 16 s.
"""

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import Tiny, dataset, trainer
from torch.utils.data import DataLoader, Dataset


class TimedModel(Tiny):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def training_step(self, batch, batch_idx):
        self.clock.advance(1)
        return super().training_step(batch, batch_idx)

    def backward(self, loss):
        loss.backward()
        self.clock.advance(2)

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.clock.advance(4)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.clock.advance(0.125)

    def validation_step(self, batch, batch_idx):
        self.clock.advance(8)
        return super().validation_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint):
        self.clock.advance(16)

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


class TimedRows(Dataset):
    def __init__(self, clock, rows):
        self.clock, self.rows = clock, dataset(rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        self.clock.advance(0.5)
        return self.rows[at]


class TimedData(pl.LightningDataModule):
    """Three batches for training, two for everything else."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        self.clock.advance(0.25)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def train_dataloader(self):
        return DataLoader(TimedRows(self.clock, 6), batch_size=2)

    def val_dataloader(self):
        return DataLoader(TimedRows(self.clock, 4), batch_size=2)

    test_dataloader = predict_dataloader = val_dataloader


def timed_trainer(*callbacks, **options):
    checkpoint = ModelCheckpoint("kept", save_top_k=-1)
    return trainer(*callbacks, checkpoint, enable_checkpointing=True, num_sanity_val_steps=1, **options)
