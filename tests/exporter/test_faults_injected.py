"""What can go wrong around the exporter goes wrong: training is untouched, nothing counts twice, all is bounded."""

import asyncio
import json
import os
import resource
import shutil
import socket
import subprocess
import threading
import time

import lightning.pytorch as pl
import psutil
import pytest
import torch
from tiny import LIGHTNING_NOISE, Tiny, fit

from liquid_telemetry import PrometheusMetrics
from liquid_telemetry.exporter import server
from liquid_telemetry.exporter.core import Exporter
from liquid_telemetry.exporter.server import HttpServer, Response
from liquid_telemetry.exporter.settings import Settings
from liquid_telemetry.spool import RunRecord, RunSeat, is_locked, start_exporter

pytestmark = pytest.mark.filterwarnings(*LIGHTNING_NOISE)

UNLIMITED = resource.getrlimit(resource.RLIMIT_FSIZE)


def errors(exporter, reason):
    return exporter.peek()["telemetry_errors_total"][("reason", reason), ("signal", "exporter")]


def ends(exporter, model):
    """Every end that has been counted of a model, by metric and reason."""
    totals = exporter.counters["totals"].get(model, {})
    return {key: total for key, (total, _) in totals.items() if total and not key.startswith("started")}


class At(pl.Callback):
    """Does something once, at the start of the second epoch."""

    def __init__(self, action):
        self.action = action

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.action()


def weights(*callbacks):
    """Train, and return what training is for."""
    torch.manual_seed(1)
    model = Tiny()
    made = fit(*callbacks, model=model, max_epochs=4)
    assert made.state.finished
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_training_is_untouched(*callbacks):
    for with_telemetry, without in zip(weights(*callbacks), weights(), strict=True):
        assert torch.equal(with_telemetry, without)


@pytest.fixture
def small_disk(spool):
    """A spool on a disk of its own, of 256 kB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(spool)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield spool
    while subprocess.run(["umount", "-l", str(spool)], capture_output=True).returncode == 0:
        pass


def fill(spool):
    with (spool / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 1024):
                pass
        except OSError:
            pass


def test_disk_that_fills_up_in_mid_run(small_disk, exporter, tmp_path, monkeypatch, wait):
    monkeypatch.chdir(tmp_path)
    serving = At(lambda: wait(lambda: exporter.address))
    assert_training_is_untouched(PrometheusMetrics(port=0), serving, At(lambda: fill(small_disk)))
    exporter.pids.add(exporter.address.pid)
    wait(lambda: exporter.jobs("completed", "Tiny") == 1)
    (small_disk / "filler").unlink()
    wait(lambda: ends(exporter, "Tiny") == {"completed/": 1})
    assert not [path for path in small_disk.rglob(".*") if path.is_file()], "no half-written file is left"


def test_exporter_that_starts_on_a_full_disk_names_itself_later(small_disk, exporter, trainer, wait):
    trainer()
    fill(small_disk)
    assert start_exporter(small_disk, "127.0.0.1", 0)
    wait(lambda: is_locked(small_disk / "exporter.lock"))
    (small_disk / "filler").unlink()
    exporter.pids.add(wait(lambda: exporter.address).pid)
    assert exporter.json("/live")[0] == 200


def test_disk_that_becomes_read_only_in_mid_run(small_disk, exporter, tmp_path, monkeypatch, wait):
    monkeypatch.chdir(tmp_path)

    def write_protect():
        for command in (["--bind", str(small_disk)], ["-o", "remount,bind,ro"]):
            subprocess.run(["mount", *command, str(small_disk)], check=True)

    serving = At(lambda: wait(lambda: exporter.address))
    assert_training_is_untouched(PrometheusMetrics(port=0), serving, At(write_protect))
    exporter.pids.add(exporter.address.pid)
    subprocess.run(["umount", "-l", str(small_disk)], check=True)
    wait(lambda: ends(exporter, "Tiny"))
    for _ in range(3):
        exporter.scrape()
    assert list(ends(exporter, "Tiny").values()) == [1], (
        "the end could not be written, but it is counted, once"
    )


def test_spool_deleted_in_mid_run(exporter, spool, tmp_path, monkeypatch, wait):
    monkeypatch.chdir(tmp_path)
    first = []

    def delete():
        first.append(exporter.address.pid)
        exporter.pids.add(first[0])
        shutil.rmtree(spool)

    wait_for_exporter = PrometheusMetrics(port=0)
    assert_training_is_untouched(At(lambda: wait(lambda: exporter.address) and delete()), wait_for_exporter)
    exporter.start()
    wait(lambda: ends(exporter, "Tiny") == {"completed/": 1})
    assert exporter.total("Tiny", "started/") == 1


def test_exporter_that_cannot_write(exporter, trainer, wait):
    """Its files may grow no more, as on a full disk: it serves on, and writes down later what it knows."""
    job = trainer()
    pid = exporter.start().pid
    assert exporter.jobs("failed", "CfC", "exception") == 0
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, UNLIMITED[1]))
    job.end("failed", reason="exception")
    wait(lambda: exporter.jobs("failed", "CfC", "exception") == 1)
    wait(lambda: errors(exporter, "spool") >= 2)
    assert ends(exporter, "CfC") == {}
    assert exporter.json("/live")[0] == 200
    assert (exporter.spool / "exporter.stderr").read_text() == ""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, UNLIMITED)
    wait(lambda: ends(exporter, "CfC") == {"failed/exception": 1})


def test_exporter_without_descriptors(exporter, trainer, wait):
    """A file that cannot be opened is no death."""
    jobs = [trainer(), trainer(model_name="LTC")]
    pid = exporter.start().pid
    exporter.scrape()
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    log = exporter.spool / "exporter.log"
    wait(lambda: "Too many open files" in log.read_text())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    wait(lambda: exporter.json("/live")[0] == 200)
    assert [ends(exporter, job.model) for job in jobs] == [{}, {}]
    for job in jobs:
        job.end("completed")
    wait(lambda: [ends(exporter, job.model) for job in jobs] == [{"completed/": 1}] * 2)


JUNK = {
    "other type": b'{"run_id": "x", "model_name": "CfC", "started": "soon"}',
    "nested": b"[" * 100_000,
    "huge": b" " * 2_000_000,
    "binary": bytes(range(256)),
    "no time": b'{"run_id": "x", "model_name": "CfC", "started": NaN, "status": "running"}',
    "list": b"[]",
    "empty": b"",
}


def test_every_kind_of_junk_in_the_spool(exporter, trainer, spool, wait, labels):
    """None of it hides a run, or keeps its end from being counted."""
    runs = spool / "runs"
    for number, content in enumerate(JUNK.values()):
        (runs / f"junk-{number}").mkdir(parents=True)
        (runs / f"junk-{number}" / "0.json").write_bytes(content)
    (runs / "directory" / "0.json").mkdir(parents=True)
    (runs / "locked" / "0.lock").mkdir(parents=True)
    (runs / "locked" / "0.json").write_text('{"run_id": "locked", "model_name": "GRU"}')
    (runs / "odd").mkdir()
    (runs / "odd" / "\u0663.json").write_text("{")
    (runs / "odd" / "-1.json").write_text("{")
    (runs / "loop").symlink_to(runs / "loop")
    (runs / "a file").write_text("")
    for name in ("exporter.json", "targets.json", "counters.json"):
        (spool / name).write_bytes(JUNK["binary"])
    (spool / "exporter.lock").write_bytes(JUNK["binary"])
    job = trainer()
    exporter.start()
    for _ in range(3):
        found = exporter.scrape()
    assert found["training_active"][labels(model_name="CfC")] == 1
    assert found["telemetry_errors_total"][labels(signal="exporter", reason="internal")] == 0
    assert found["telemetry_errors_total"][labels(signal="exporter", reason="counters")] == 1
    assert [exporter.get(path)[0] for path in ("/", "/ready", "/live")] == [200, 200, 200]
    job.end("failed", reason="exception")
    wait(lambda: exporter.total("CfC", "failed/exception") == 1)


def test_counters_that_cannot_be_read(exporter, trainer, spool, labels):
    (spool / "counters.json").mkdir()
    trainer()
    exporter.start()
    found = exporter.scrape()
    assert found["telemetry_errors_total"][labels(signal="exporter", reason="counters")] == 1
    assert exporter.jobs("started", "CfC") == 1
    assert (spool / "counters.damaged").is_dir()
    assert exporter.total("CfC", "started/") == 1


class Clock:
    """A wall clock that somebody sets."""

    def __init__(self, monkeypatch):
        self.offset, real = 0.0, time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.offset)


@pytest.mark.parametrize("step", [-86_400.0 * 400, 86_400.0 * 400], ids=["back", "forth"])
def test_wall_clock_that_steps(spool, trainer, monkeypatch, step, wait):
    """Order and waiting go by a clock that nobody sets; what is counted stays counted."""
    clock = Clock(monkeypatch)
    first, exporter = trainer(run_id="first"), Exporter(Settings(spool, poll=0.0, models=1))

    def scrape():
        scrape = asyncio.run(exporter.scrape())
        exporter.acknowledge(scrape)
        return scrape.totals

    started, failed = ("CfC", ("started", "")), ("CfC", ("failed", "exception"))
    assert [scrape()[started] for _ in range(2)] == [0, 1]
    clock.offset = step
    second = trainer(run_id="second")
    assert [scrape()[started] for _ in range(2)] == [2, 2]
    first.end("failed", reason="exception")
    assert [scrape()[failed] for _ in range(2)] == [1, 1]
    clock.offset = -step
    second.end("failed", reason="exception")
    assert [scrape()[failed] for _ in range(3)] == [2, 2, 2]
    exporter.close()
    following = Exporter(Settings(spool))
    assert following.book.ledger.shown()[failed] == 2
    following.close()


def stale(spool, number):
    directory = spool / "runs" / f"stale-{number}"
    directory.mkdir(parents=True)
    (directory / "0.lock").touch()
    record = {
        "run_id": directory.name,
        "model_name": f"M{number % 3}",
        "status": "running",
        "started": number,
    }
    (directory / "0.json").write_text(json.dumps(record))
    (directory / "0.prom").write_text(
        f'# TYPE liquid_nn_x gauge\nliquid_nn_x{{model_name="M"}} {number}\n# EOF\n'
    )


def test_a_thousand_stale_runs_hold_up_nothing(exporter, trainer, spool, snapshot, wait, labels):
    """The first look takes up a few; the live run is among them; all are counted once, and none is left."""
    for number in range(1000):
        stale(spool, number)
    job = trainer()
    job.publish(snapshot())
    process = psutil.Process(exporter.start().pid)
    assert exporter.peek()["training_active"][labels(model_name="CfC")] == 1
    assert len(list((spool / "runs").iterdir())) > 500, "it served long before it had cleared them away"
    wait(
        lambda: sum(ends(exporter, f"M{number}").get("failed/unknown", 0) for number in range(3)) == 1000, 120
    )
    for _ in range(3):
        exporter.scrape()
    wait(lambda: [path.name for path in (spool / "runs").iterdir()] == [job.run_id])
    assert process.memory_info().rss < 80e6
    assert process.num_fds() < 64
    assert len(exporter.counters["runs"]) <= 501
    assert (spool / "counters.json").stat().st_size < 300_000


def test_flood_of_scrapes(exporter, trainer, snapshot, labels):
    """Each gets its answer and is counted; a real scrape in between does, too."""
    trainer().publish(snapshot())
    process = psutil.Process(exporter.start().pid)
    exporter.scrape()
    before, statuses = process.memory_info().rss, []

    def flood():
        for _ in range(40):
            statuses.append(exporter.get("/metrics")[0])

    threads = [threading.Thread(target=flood) for _ in range(12)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert exporter.scrape()["training_active"] == {labels(model_name="CfC"): 1}
    for thread in threads:
        thread.join()
    assert statuses == [200] * 480
    calls = exporter.scrape()["api_calls_total"]
    assert calls[labels(endpoint="/metrics", method="GET", status="200")] == 480 + 6
    assert process.memory_info().rss - before < 20e6
    assert process.num_fds() < 64


def test_random_paths_and_methods_make_no_series(exporter, trainer):
    trainer()
    exporter.start()
    for number in range(100):
        exporter.get(f"/{number}", method=f"M{number}")
        exporter.get("/metrics?x=" + "y" * number)
    assert len(exporter.scrape()["api_calls_total"]) == 2


def test_clients_that_dawdle_are_sent_away(monkeypatch):
    """Silent, one byte at a time, or silent after an answer: the time for a request is for all of it."""
    monkeypatch.setattr(server, "_FIRST_REQUEST", 0.3)
    monkeypatch.setattr(server, "_NEXT_REQUEST", 0.3)

    async def answer(request):
        return Response(200, b"x")

    async def silent(reader, writer):
        assert await reader.read() == b""

    async def loris(reader, writer):
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():
            writer.write(b"X")
            await asyncio.wait({ended}, timeout=0.05)

    async def idle(reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")

    async def serve():
        http = HttpServer(answer)
        port = await http.start("127.0.0.1", 0)
        for client in (silent, loris, idle):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.wait_for(client(reader, writer), 20)
            writer.transport.abort()
        await http.close()

    asyncio.run(serve())


def test_body_that_never_ends_is_not_read(exporter, trainer):
    trainer()
    process = psutil.Process(exporter.start().pid)
    exporter.scrape()
    before = process.memory_info().rss
    with socket.create_connection((exporter.address.host, exporter.address.port), timeout=10) as client:
        client.sendall(b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
        sent = 0
        try:
            while sent < 200_000_000:
                client.sendall(b"x" * 1_000_000)
                sent += 1_000_000
        except OSError:
            pass
    assert sent < 100_000_000
    assert exporter.get("/live")[0] == 200
    assert process.memory_info().rss - before < 20e6


def test_full_disk_takes_the_last_values_not_the_outcome(spool, monkeypatch):
    seat = RunSeat.take(spool, RunRecord("run", "CfC"))
    seat.publish(b"# EOF\n")
    record = spool / "runs" / "run" / "0.json"
    replace, snapshot = os.replace, record.with_suffix(".prom")

    def full(self, target):
        if snapshot.exists():
            raise OSError(28, "No space left on device")
        replace(self, target)

    monkeypatch.setattr("pathlib.Path.replace", full)
    seat.update(status="completed")
    monkeypatch.undo()
    assert RunRecord.from_json(record.read_bytes()).status == "completed"
    assert not snapshot.exists()
    seat.release()
