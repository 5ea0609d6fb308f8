"""A notebook's kernel that trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

from failures.stage import JOB, environment


class Kernel:
    """A kernel with an empty folder of its own; leaving the context ends it.

    Args:
        folder: Where its cells train.
        spool: Of its runs.
    """

    def __init__(self, folder: Path, spool: Path) -> None:
        folder.mkdir(parents=True)
        self._manager = KernelManager()
        self._manager.start_kernel(cwd=str(folder), env=environment(spool))
        self._client: Any = self._manager.blocking_client()

    def __enter__(self) -> Kernel:
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def train(self, options: Sequence[str]) -> Callable[[], str]:
        """Run a cell that trains; the answer, which waits for its end, is the cell's status."""
        self._client.execute(
            f"import sys; sys.path.insert(0, {str(JOB.parent)!r})\nimport job; job.main({[*options]!r})"
        )

        def status() -> str:
            reply = self._client.get_shell_msg(timeout=120)
            return str(reply["content"]["status"])

        return status

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self._manager.provisioner.process.pid)

    @property
    def is_alive(self) -> bool:
        """Whether it goes on."""
        return bool(self._manager.is_alive())
