"""A collector that answers, that is slow, and that is dead: batches, and the end of fit."""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.telemetry.loop import Variant, run_once
from benchmarks.telemetry.measure import added, interleave, table
from benchmarks.telemetry.variants import ours
from liquid_telemetry import Telemetry

COLLECTOR = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(float(sys.argv[1]))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def collector(pause: float) -> Iterator[str]:
    """The address of a collector in another process that answers after a pause, in seconds."""
    arguments = [sys.executable, "-c", COLLECTOR, str(pause)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def collectors(folder: Path, count: int, rounds: int) -> None:
    """Print what a batch and the end of fit cost with each."""
    with collector(0) as fast, collector(2) as slow:
        bare = Variant("bare loop")
        chosen = [bare, Variant("no collector", ours(Telemetry, folder))]
        for name, address in (("up", fast), ("2 s to answer", slow), ("dead", nobody())):
            chosen.append(Variant(name, ours(Telemetry, folder, otlp_endpoint=address)))
        interleave(chosen, rounds, lambda variant: run_once(variant, count))
    batch = {variant.name: [timing.batch for timing in variant.results] for variant in chosen}
    rows = []
    for variant in chosen:
        ends = [timing.end for timing in variant.results]
        cost = added(batch[variant.name], batch[bare.name]) if variant is not bare else ""
        rows.append((variant.name, cost, f"{statistics.median(ends):.2f}", f"{max(ends):.2f}"))
    print(
        f"{rounds} rounds of {count} batches; all fits are of one process, which waits for a collector once\n"
    )
    table(("collector", "added µs a batch (quartiles)", "end of fit, s", "longest, s"), rows)
