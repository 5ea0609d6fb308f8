"""The live page in a real Chromium, beside a real exporter."""

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import browser
import pytest
from axe_playwright_python.sync_playwright import Axe
from servers import binary, eventually

from liquid_telemetry.live.log import MAX_EVENTS
from liquid_telemetry.live.points import MAX_POINTS, encode
from liquid_telemetry.spool import RunRecord, RunSeat

HOSTILE = '<img src=x onerror="alert(1)"></script>&amp;"'
SEVERE = {"serious", "critical"}
ACROSS = "document.querySelector('#loss .u-over') !== null"


@pytest.fixture
def visit():
    with browser.chromium(binary("chromium")) as opened:
        yield opened


@pytest.fixture
def learning(tmp_path):
    """Start a real fit by its model's name."""
    started = []

    def start(name):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, Path(__file__).with_name("learning.py"), name]
        with (tmp_path / "fit.log").open("wb") as log:
            started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def address(exporter):
    return lambda: eventually(lambda: exporter.address, 60).url + "/"


def check_quiet(visited, url):
    """No message in the console, and no request that leaves the exporter."""
    assert visited.problems == []
    assert {urlsplit(request).netloc for request in visited.requests if not request.startswith("data:")} == {
        urlsplit(url).netloc
    }


def points(visited):
    return visited.page.evaluate("courses.get(chosen)?.columns?.time.length ?? 0")


def check_accessible(visited):
    found = Axe().run(visited.page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found if rule["impact"] in SEVERE] == []


def test_curves_move_and_a_kill_is_shown(visit, learning, address, exporter):
    process = learning(HOSTILE)
    url = address()
    page = visit(url)
    page.until(ACROSS)
    assert page.text("#model") == HOSTILE
    assert page.text("#state") == "running"
    seen, caption = points(page), page.text("#loss p")
    page.until(f"courses.get(chosen).columns.time.length > {seen + 1}")
    assert page.text("#loss p") != caption
    assert "training" in caption
    page.until("document.querySelectorAll('#events tr').length > 0")
    check_accessible(page)

    process.kill()
    process.wait()
    page.until("document.querySelector('#state').textContent.startsWith('failed (killed)')")
    said = page.text("#state")
    assert "killed by signal 9 (SIGKILL) in epoch" in said
    assert "last seen" in said
    page.until("document.querySelector('#events .error') !== null")
    assert page.text("#events tr:first-child").split("\t")[1:3] == ["error", "training_failed"]
    check_quiet(page, url)

    exporter.kill()
    page.until("!document.querySelector('#banner').hidden")
    assert page.text("#banner").startswith("No answer since")
    assert page.text("#model") == HOSTILE


NARROW = """(() => {
  charts.get("memory")?.destroy();
  charts.delete("memory");
  draw("memory", [0, 1, 2], [["processes", [546e6, 547e6, 548e6]]], { form: bytes });
  return new Promise((done) => setTimeout(() => {
    const chart = charts.get("memory"), axis = chart.axes[1];
    chart.ctx.font = axis.font[0];
    const widest = Math.max(...axis._values.map((label) => chart.ctx.measureText(label).width));
    done([Math.max(...axis._values.map((label) => label.length)), widest / devicePixelRatio, axis._size]);
  }));
})()"""


def test_a_scale_has_room_for_long_figures(visit, learning, address):
    """Memory that hardly changes needs many digits: "548.00 MB"."""
    learning("Slow")
    page = visit(address())
    page.until(ACROSS)
    characters, widest, size = page.page.evaluate(NARROW)
    assert characters >= len("548.00 MB")
    # uPlot's ticks of 10 pixels, and 5 before the figures.
    assert widest + 15 <= size


def test_restarted_exporter_knows_the_course(visit, learning, address, exporter):
    learning("Slow")
    page = visit(address())
    page.until("courses.get(chosen)?.columns?.time.length > 3")
    first = page.page.evaluate("courses.get(chosen).columns.time[0]")
    exporter.kill()
    exporter.start()
    url = address()
    page = visit(url)
    page.until("courses.get(chosen)?.columns?.time.length > 4")
    assert page.page.evaluate("courses.get(chosen).columns.time[0]") == first
    check_quiet(page, url)


def test_keyboard_and_phone(visit, trainer, snapshot, exporter):
    for name in ("A", "B"):
        trainer(model_name=name, run_id=f"run-{name}").publish(snapshot(step=1))
    exporter.start()
    url = exporter.address.url + "/"
    page = visit(url, "phone", "dark")
    page.until("document.querySelectorAll('#runs li').length === 2")
    width = page.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    chosen = page.text("#model")
    other = {"A": "B", "B": "A"}[chosen]
    for _ in range(20):
        page.page.keyboard.press("Tab")
        if page.page.evaluate("document.activeElement.textContent").startswith(other):
            break
    page.page.keyboard.press("Enter")
    page.until(f"document.querySelector('#model').textContent === '{other}'")
    assert page.page.url == f"{url}#run-{other}"
    check_accessible(page)
    check_quiet(page, url)


def test_a_hundred_runs_and_a_million_batches(visit, exporter, spool, snapshot, tmp_path):
    """What the page holds does not grow with them, and it answers a click."""
    seats, began = [], time.time() - 100_000
    course = "".join(
        encode({"time": began + 80 * n, "step": 1_000_000 * n / MAX_POINTS, "loss": 1 / (n + 1)})
        for n in range(MAX_POINTS)
    )
    for number in range(100):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        (folder / "history.jsonl").write_text(course)
        record = RunRecord(
            run_id=f"run-{number}",
            model_name=f"M{number % 5}",
            status="running",
            started=began,
            run_dir=str(folder),
        )
        seats.append(RunSeat.take(spool, record))
        seats[-1].publish(snapshot(step=1_000_000).encode())
    try:
        exporter.start()
        url = exporter.address.url + "/"
        page = visit(url)
        page.until("document.querySelectorAll('#runs li').length === 100")
        page.until(f"courses.get(chosen)?.columns?.time.length > {MAX_POINTS // 3}")
        for number in (7, 93):
            page.page.locator(f"#runs li:nth-child({number}) button").click()
            name = page.text(f"#runs li:nth-child({number}) button span:first-child")
            page.until(f"document.querySelector('#model').textContent === '{name}'")
        page.page.locator("#runs li:nth-child(3) input").check()
        page.until("charts.get('loss')?.series.length === 3")
        assert points(page) <= MAX_POINTS
        assert page.page.evaluate("document.querySelectorAll('#events tr').length") <= MAX_EVENTS
        assert page.page.evaluate("document.querySelectorAll('*').length") < 2000
        check_quiet(page, url)
    finally:
        for seat in seats:
            seat.release()
