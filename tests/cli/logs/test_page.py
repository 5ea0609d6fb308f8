"""The page of `liquid-train logs`: all of it, and nothing that runs."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import browser
import pytest
from axe_playwright_python.sync_playwright import Axe
from loglines import line
from servers import binary

from liquid_train.__main__ import main


class Page(HTMLParser):
    """Tags, and the texts between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_page_holds_all_and_runs_nothing(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "<script>alert(1)</script>&\"'"
    more = {"run_id": evil, "model_name": evil, "reason": evil, "error_type": evil, "error_message": evil}
    (history / "r1" / "events.1.jsonl").write_bytes(
        line("training_failed", "2026-11-08T00:00:00Z", "error", **more) + b"\n<img src=x>\n"
    )
    target = history / "report.html"
    assert main(["logs", "--html", str(target), str(history)]) == 0
    assert f"page  {target}" in capsys.readouterr().out
    text = target.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert {"script", "img", "link", "iframe"}.isdisjoint(page.tags)
    assert page.links == []
    assert page.texts.count(evil) >= 5
    assert page.tags.count("svg") == 2
    assert page.tags.count("circle") == 7
    assert not re.search(r"\son\w+=", text)
    assert "url(" not in text
    assert {"<img src=x>", "Failures by cause", "killed", "2"} <= set(page.texts)


def test_page_in_a_browser(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = history / "report.html"
    assert main(["logs", "--html", str(target), str(history)]) == 0
    with browser.chromium(binary("chromium")) as visit:
        for size, scheme in (("desktop", "light"), ("phone", "dark")):
            page = visit(target.as_uri(), size, scheme)
            found = Axe().run(page.page).response["violations"]
            assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
            assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), size
            assert page.problems == []
            assert page.requests == [target.as_uri()]
