"""Executes notebooks from empty, each in a kernel and a folder of its own.

    PYTHONPATH=tests python -m notebooks.execute [NOTEBOOK.ipynb ...]

executes those named, or all, with the settings a reader sees, and keeps what they show.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SMALL = "LIQUID_NOTEBOOK_SMALL"


def execute(path: Path, folder: Path, *, small: bool, timeout: int = 600) -> NotebookNode:
    """Return the notebook with what its cells show; the one that fails raises.

    Args:
        path: A notebook; it is not written to.
        folder: An empty one, the working directory and the place of all temporary files.
        small: Whether to take the small settings.
        timeout: Seconds that a cell may take.
    """
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIQUID_")}
    environment |= {"TMPDIR": str(folder), SMALL: "1" if small else "0", "OMP_NUM_THREADS": "1"}
    client = NotebookClient(
        book,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    client.execute(env=environment)
    return book


def main(paths: list[Path]) -> None:
    """Execute notebooks and write them back."""
    for path in paths:
        with TemporaryDirectory() as folder:
            nbformat.write(execute(path, Path(folder), small=False), path)
        print(path.name)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]] or NOTEBOOKS)
