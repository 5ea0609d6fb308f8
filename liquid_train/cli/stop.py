"""Ctrl-C between two batches instead of inside one."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl


class GracefulStop(pl.Callback):
    """Lets the batch under way finish on Ctrl-C, so that the last checkpoint is whole and exact.

    The second Ctrl-C stops at once, as does the first outside training, with several processes, or where
    signals cannot be caught (not in the main thread).
    """

    def __init__(self) -> None:
        self._asked = False
        self._previous: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over Ctrl-C."""
        self._asked = False
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)

    def on_train_batch_end(self, *args: Any) -> None:
        """Stop here, if asked to."""
        if self._asked:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give Ctrl-C back."""
        self._restore()
        if self._asked:
            raise KeyboardInterrupt

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give Ctrl-C back; Lightning ignores it while it shuts down."""
        if not isinstance(exception, KeyboardInterrupt):
            self._restore()

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self._restore()
        self._asked = True
        sys.stderr.write("\nStopping after this training step; Ctrl-C again stops at once.\n")

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
