"""Documentation runs: every Python block of the README and of docs/ is executed, every link leads somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from liquid_telemetry.signals.__main__ import markdown

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
RUN_BLOCKS = """
import json, sys
for block in json.load(sys.stdin):
    exec(compile(block, "block", "exec"), {"__name__": "__main__"})
"""


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    environment = {**os.environ, "LIQUID_TELEMETRY_SPOOL": str(tmp_path / "spool"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN_BLOCKS],
        input=json.dumps(blocks),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_the_reference_is_the_catalogue() -> None:
    page = (ROOT / "docs" / "signals.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: python -m liquid_telemetry.signals > docs/signals.md"
