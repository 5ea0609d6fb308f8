"""Every notebook runs from empty with small settings, shows plots, and leaves nothing behind."""

from __future__ import annotations

import ast
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat import NotebookNode

from notebooks.execute import NOTEBOOKS, SMALL, execute

README = NOTEBOOKS[0].with_name("README.md")
PRIVATE = re.compile(r"/(home|root|tmp|work|usr|Users|var)/|[A-Z]:\\\\|@[\w-]+:")


def book(number: int) -> Path:
    return next(path for path in NOTEBOOKS if path.name.startswith(f"{number}_"))


def belong_to(folder: Path) -> list[psutil.Process]:
    """Processes that were started with the folder as an argument or as their place for temporary files."""
    found = []
    for process in psutil.process_iter():
        try:
            known = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(str(folder) in text for text in known):
            found.append(process)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; what still runs for it at the end is stopped."""
    place = tmp_path / "place"
    place.mkdir()
    yield place
    for process in belong_to(place):
        process.kill()


def run(number: int, folder: Path) -> str:
    """Execute a notebook small, check what holds for all, and return the text that it shows."""
    done = execute(book(number), folder, small=True, timeout=180)
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
    assert belong_to(folder) == []
    assert not [path for path in folder.iterdir() if path.name.startswith("tmp")]
    return text_of(outputs)


def text_of(outputs: list[NotebookNode], kind: str = "text/plain") -> str:
    parts = (output.get("text") or output.get("data", {}).get(kind, "") for output in outputs)
    return "\n".join(parts)


def test_telemetry_is_added_and_watched(folder: Path) -> None:
    shown = run(1, folder)
    assert "474 batches counted, 6 epochs logged" in shown  # 6 epochs of 20,000 samples in batches of 256
    readings = re.search(r"(\d+) readings of http://127.0.0.1:\d+/metrics", shown)
    assert readings is not None
    assert int(readings[1]) > 2


def test_irregular_time(folder: Path) -> None:
    shown = run(2, folder)
    assert re.search(r"CfC with times +43465\n", shown)
    assert shown.count("CfC - LSTM, both with times") == 2
    assert "speakers, 80% missing  median timespan 3" in shown
    assert re.search(r"^parity +CfC with times +median time constant +[\d.]+, shortest +[\d.]+$", shown, re.M)


def test_a_run_is_read_afterwards(folder: Path) -> None:
    shown = run(3, folder)
    phases, wall = re.search(r"phases ([\d.]+) s, wall time ([\d.]+) s", shown).groups()
    assert float(phases) == pytest.approx(float(wall), abs=2e-4)
    assert re.search(r"liquid_nn_training_batches_total +train +24.0\n", shown)
    for phase, logged, counted in re.findall(
        r"^(forward|backward|optimizer) +([\d.]+) +([\d.]+)$", shown, re.M
    ):
        assert logged == counted, phase


def test_what_breaks_is_recorded(folder: Path) -> None:
    shown = run(4, folder)
    for job, reason in {"killed": "killed", "hangs": "stalled", "diverges": "nonfinite"}.items():
        assert re.search(rf"^{job} +{reason} +1.0$", shown, re.M), "counted once"
        assert re.search(rf"^{job} +failed +{reason} +\d+ +0$", shown, re.M), "the trace is whole"
    for event in ("training_stalled", "training_nonfinite_loss", "training_failed"):
        assert event in shown
    assert "in wait_for_an_answer" in shown, "the stacks of the hang"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_can_be_shown(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)], "executed once, from empty"
    assert [output for output in outputs if "image/png" in output.get("data", {})]
    for text in (text_of(outputs), text_of(outputs, "text/html")):
        assert not PRIVATE.search(text)
        assert socket.gethostname() not in text
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_has_one_cell_of_settings_and_ends_in_something_to_change(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    settings = [i for i, cell in enumerate(cells) if cell.source == "## Settings"]
    assert len(settings) == 1
    assert SMALL in cells[settings[0] + 1].source
    ast.parse(cells[settings[0] + 1].source)
    assert cells[-1].source.startswith("**Change this:**")


def test_the_list_has_each() -> None:
    assert re.findall(r"\]\((\d_\w+\.ipynb)\)", README.read_text(encoding="utf-8")) == [
        p.name for p in NOTEBOOKS
    ]
