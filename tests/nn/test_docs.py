"""The Python blocks of the page on liquid networks run, each by itself."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "liquid-networks.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(block):
    exec(compile(block, str(PAGE), "exec"), {})


def test_there_are_blocks():
    assert len(BLOCKS) >= 7
