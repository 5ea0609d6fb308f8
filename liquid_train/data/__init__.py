"""Time series to train on: data modules whose batches carry lengths and true time stamps."""

from liquid_train.data.archive_module import ArchiveDataModule
from liquid_train.data.batch import Batch, Series
from liquid_train.data.module import SeriesDataModule, Splits
from liquid_train.data.xor import XorDataModule

__all__ = ["ArchiveDataModule", "Batch", "Series", "SeriesDataModule", "Splits", "XorDataModule"]
