"""The quick ones of the ways to fail, beside a real Prometheus and Alertmanager; `make failures` plays all."""

from __future__ import annotations

from pathlib import Path

import pytest

from failures.__main__ import play
from failures.plays import Verdict
from failures.scenarios import SCENARIOS
from failures.stage import stage

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"
FAST = [scenario for scenario in SCENARIOS if scenario.fast]

pytestmark = [pytest.mark.server("prometheus"), pytest.mark.server("prometheus-alertmanager")]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """What was seen of each, by name."""
    with stage(tmp_path_factory.mktemp("failures") / "stage", shipped=False) as made:
        seen = play(made, FAST, at_once=3, settle=3)
    return {verdict.scenario.name: verdict for verdict in seen}


@pytest.mark.parametrize("name", [scenario.name for scenario in FAST])
def test_it_is_counted_once_and_told(verdicts: dict[str, Verdict], name: str) -> None:
    assert verdicts[name].wrong == []


def test_the_page_tells_of_each() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.endswith(" | ok |")]
    assert [row[0].removeprefix("| ") for row in rows] == [scenario.what for scenario in SCENARIOS]


def test_every_scenario_has_a_name_of_its_own() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
