"""A trainer that is killed cannot finish its story; the exporter does."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servers import eventually

from liquid_telemetry.signals import EVENTS


def test_a_killed_run_leaves_a_whole_trace_and_an_event(fit: Callable[..., Any]) -> None:
    run = fit()
    eventually(lambda: len(run.events("training_epoch_completed")) >= 8, 60)
    eventually(lambda: (run.record.epoch or 0) >= 1)  # what the exporter knows is up to a second old
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    (failed,) = eventually(lambda: run.events("training_failed"), 30)
    assert failed["logger"] == "liquid_telemetry.exporter"
    assert failed["run_id"] == run.run.name
    assert failed["epoch"] >= 1
    assert (failed["reason"], failed["known_by"]) == ("killed", "exit status")
    assert (failed["exit_code"], failed["signal"], failed["signal_name"]) == (None, 9, "SIGKILL")
    assert failed["error_message"] == "killed by signal 9 (SIGKILL)"
    assert failed["memory_process_bytes"] > 10_000_000
    before = (run.run / "events.jsonl").read_text().splitlines()[-11:-1]
    tail = zip(before, failed["log_tail"], strict=True)
    assert all(line.startswith(told.removesuffix("…")) for line, told in tail)
    assert not set(EVENTS["training_failed"].fields) - failed.keys()

    spans = eventually(lambda: run.spans("fit") and run.spans())
    ids = {span["spanId"] for span in spans}
    assert len(ids) == len(spans), "no span is written twice"
    assert {span["traceId"] for span in spans} == {failed["trace_id"]}
    assert [span["name"] for span in spans if "parentSpanId" not in span] == ["fit started"]
    assert {span["parentSpanId"] for span in spans if "parentSpanId" in span} <= ids
    closed = [span for span in spans if span["status"].get("code") == 2]
    names = sorted(span["name"] for span in closed)
    assert names in (["fit"], ["fit", "train epoch"], ["fit", "train epoch", "validation epoch"])


SLOW = """
import time
from lightning.pytorch import Callback

class Slow(Callback):
    def on_validation_batch_end(self, trainer, *_):
        if trainer.current_epoch == 2 and not trainer.sanity_checking:
            time.sleep(1)
"""


def test_a_run_that_is_killed_in_a_validation_leaves_a_whole_trace(
    fit: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    run = fit("--trainer.callbacks=slow.Slow", "--data.batch_size=1")

    def orphans(name: str | None = None) -> set[str]:
        spans = run.spans()
        parents = {span.get("parentSpanId") for span in spans if name in (None, span["name"])}
        return parents - {span["spanId"] for span in spans} - {None}

    eventually(lambda: len(run.events("training_epoch_completed")) >= 2, 60)
    # Batches are written before the epoch that they belong to.
    eventually(lambda: orphans("validation batch"), 30)
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    eventually(lambda: run.spans("fit"), 30)
    assert not orphans()
    closed = [span["name"] for span in run.spans() if span["status"].get("code") == 2]
    assert sorted(closed) == ["fit", "train epoch", "validation epoch"]
