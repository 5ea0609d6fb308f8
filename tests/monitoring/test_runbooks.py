"""Runbooks: one for each alert, and what they tell to type works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from liquid_telemetry import Telemetry
from liquid_telemetry.signals import EVENTS
from liquid_telemetry.signals._events import COMMON_FIELDS
from liquid_train.__main__ import main

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "monitoring" / "runbooks"
INDEX = RUNBOOKS / "README.md"
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path != INDEX)
OPERATING = ROOT / "docs" / "operating.md"
EVERY = [*PAGES, INDEX, OPERATING]
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Resolution"]
LEVELS = {"critical": "critical", "high": "critical", "medium": "warning", "low": "warning"}
SUBCOMMANDS = {
    "bench",
    "clean",
    "doctor",
    "export",
    "fit",
    "logs",
    "predict",
    "run",
    "serve",
    "test",
    "validate",
    "view",
}
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(#[^)\s]*)?\)")

pytestmark = [pytest.mark.filterwarnings(noise) for noise in tiny.LIGHTNING_NOISE]
by_name = pytest.mark.parametrize("page", EVERY, ids=lambda path: path.stem)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.replace("\\\n", "").splitlines() if line]


def queries(page: Path) -> list[str]:
    asked = re.findall(r"promtool query instant \S+ (?:'([^']+)'|(\S+))", page.read_text())
    return [*blocks(page, "promql"), *(quoted or bare for quoted, bare in asked)]


def test_every_alert_has_its_runbook(alerts: dict[str, dict[str, Any]]) -> None:
    assert [page.stem for page in PAGES] == sorted(alerts)
    for name, alert in alerts.items():
        path = alert["annotations"]["runbook_url"].split("/blob/main/")[1]
        assert (ROOT / path).read_text().startswith(f"# {name}\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_runbook_has_its_five_parts(page: Path) -> None:
    assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == HEADINGS
    diagnosis = page.read_text().split("## Diagnosis")[1].split("## Mitigation")[0]
    assert "```sh" in diagnosis
    assert "```promql" in diagnosis


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_level_and_severity_are_those_of_matrix_and_rule(
    page: Path, alerts: dict[str, dict[str, Any]]
) -> None:
    said = re.search(r"Severity (\w+), \[level (\w+)\]\(README.md#escalation\)", page.read_text())
    assert said is not None
    severity, level = said.groups()
    assert severity == alerts[page.stem]["labels"]["severity"] == LEVELS[level]
    assert f"| [{page.stem}]({page.name}) | {level} | {severity} |" in INDEX.read_text()


def test_index_has_the_matrix_and_the_tasks_with_commands() -> None:
    text = INDEX.read_text()
    for level, severity in LEVELS.items():
        assert re.search(rf"^\| {level} \| `{severity}` \|", text, re.MULTILINE), level
    for name in ("Daily", "Weekly", "Monthly", "Quarterly"):
        part = text.split(f"## {name}\n")[1].split("\n## ")[0]
        assert "```sh" in part, name


@by_name
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text()) if target and "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.server("promtool")
def test_queries_are_promql(tmp_path: Path, tool: Callable[..., str]) -> None:
    found = [query for page in EVERY for query in queries(page)]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(found)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(found)} rules found" in tool("promtool", "check", "rules", path)
    assert len(found) > len(PAGES)


@by_name
def test_metrics_and_labels_exist(page: Path, unknown: Callable[[str], list[str]]) -> None:
    text = page.read_text()
    assert unknown(text.replace("liquid_nn:threshold:…", "")) == []


@by_name
def test_commands_are_shell_and_ours_exist(page: Path) -> None:
    for command in commands(page):
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert checked.returncode == 0, command + checked.stderr
    assert set(re.findall(r"\bliquid-train (\w+)", page.read_text())) <= SUBCOMMANDS
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(commands(page)), re.MULTILINE):
        assert f"\n{target}:" in makefile


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that failed in its second epoch."""

    class Failing(tiny.Tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.current_epoch == 1:
                raise ValueError("on purpose")
            return super().training_step(batch, batch_idx)

    with tiny.workplace(tmp_path_factory.mktemp("runbooks")):
        with pytest.raises(ValueError, match="on purpose"):
            tiny.fit(Telemetry(), model=Failing())
        return tiny.only_run().dir


@by_name
def test_jq_programs_run_on_a_real_run(page: Path, failed_run: Path) -> None:
    programs = [command for command in commands(page) if command.startswith("jq ")]
    for command in programs:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command.replace("RUN", failed_run.name)],
            cwd=failed_run.parents[1],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, command + done.stderr
        if "training_failed" in command and "-r" in command:
            assert "on purpose" in done.stdout or "exception" in done.stdout


@by_name
def test_reports_and_rules_are_taken(
    page: Path, failed_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(failed_run.parents[1])
    for command in commands(page):
        words = shlex.split(command.replace("RUN", failed_run.name), comments=True)
        if words[:2] in (["liquid-train", "logs"], ["liquid-train", "clean"]):
            only_look = ["--dry-run"] if words[1] == "clean" else []
            assert main([*words[1:], *only_look]) == 0, command
            assert failed_run.name in capsys.readouterr().out, command


@by_name
def test_events_and_fields_exist(page: Path) -> None:
    known = {*COMMON_FIELDS, *(field for event in EVENTS.values() for field in event.fields)}
    for command in commands(page):
        if "events.jsonl" not in command or "jq" not in command:
            continue
        assert set(re.findall(r'\.event == "(\w+)"', command)) <= EVENTS.keys()
        program = re.sub(r'"[^"]*"', "", " ".join(re.findall(r"'([^']*)'", command)))
        fields = {*re.findall(r"\.([a-z_]+)", program), *re.findall(r"[{,] ?([a-z_]+)", program)}
        assert fields <= known, command


def test_keys_of_the_manifest_exist(failed_run: Path) -> None:
    manifest = json.loads((failed_run / "telemetry.json").read_text())
    asked = {
        key
        for page in EVERY
        for key in re.findall(r"jq (?:-r )?'?\[?\.(\w+)'? (?:runs/\S+/)?telemetry\.json", page.read_text())
    }
    assert asked <= manifest.keys()
    assert {"pid", "spool"} <= asked
