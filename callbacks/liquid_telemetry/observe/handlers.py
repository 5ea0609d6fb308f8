"""Keeping Lightning from the handlers of signals that are not its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def keep_handlers(trainer: Trainer, signals: Iterable[int | None]) -> None:
    """Let Lightning forget what handlers some signals had when it began.

    In the end it would put them back: after a failure when they have been given back for good, else while a signal may
    be on its way, whose default is to end the process.

    Args:
        trainer: Whose Trainer function is under way.
        signals: Those that it is to leave alone.
    """
    noted = getattr(getattr(trainer, "_signal_connector", None), "_original_handlers", None)
    if isinstance(noted, dict):
        for number in signals:
            noted.pop(number, None)
