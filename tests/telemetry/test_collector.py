"""Sending spans: what is lost is counted and told, and no run waits long for a collector."""

import json
import logging
import queue
import threading

import pytest
from lightning.pytorch import Callback
from opentelemetry.sdk.trace.export import SpanExportResult
from servers import eventually
from tiny import Tiny, TinyData, fit, only_run, run_python

from liquid_telemetry import OpenTelemetrySpans, Telemetry
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.tracing import collector as collectors
from liquid_telemetry.tracing.collector import PATIENCE, Collector
from liquid_telemetry.tracing.endpoint import Destination
from liquid_telemetry.tracing.send import Sender

SDK_LOGGER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Exporter:
    """The SDK's exporter, as a test wants it; ``holds`` keeps each export until ``go``."""

    def __init__(self, takes=True, holds=False, says=()):
        self.takes, self.says = takes, says
        self.requests = []
        self.asked, self.go, self.is_shut_down = threading.Event(), threading.Event(), False
        if not holds:
            self.go.set()

    def export(self, spans):
        self.requests.append([span.name for span in spans])
        for line in self.says:
            logging.getLogger(SDK_LOGGER).warning(line)
        self.asked.set()
        self.go.wait()
        return SpanExportResult.SUCCESS if self.takes else SpanExportResult.FAILURE

    def shutdown(self):
        self.is_shut_down = True

    @property
    def received(self):
        return [name for request in self.requests for name in request]


@pytest.fixture
def use(monkeypatch):
    """Lets every sender use an exporter, and each test know nothing of collectors."""
    used = []
    monkeypatch.setattr(collectors, "_collectors", {})

    def use(exporter):
        used.append(exporter)
        monkeypatch.setattr(Destination, "build", lambda _: exporter)
        return exporter

    yield use
    for exporter in used:
        exporter.go.set()
    for thread in senders():
        thread.join()


def senders():
    return [thread for thread in threading.enumerate() if thread.name == "liquid-telemetry-otlp"]


class Clock:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


class Joined:
    """A thread that never ends; waiting for it moves the clock."""

    def __init__(self, clock, alive=True):
        self.clock, self.alive, self.timeouts = clock, alive, []

    def is_alive(self):
        return self.alive

    def join(self, timeout):
        self.timeouts.append(timeout)
        self.clock.time += timeout


SPAN = json.dumps(
    {
        "name": "a",
        "traceId": "1" * 32,
        "spanId": "2" * 16,
        "status": {},
        "attributes": [],
        "startTimeUnixNano": "1",
        "endTimeUnixNano": "2",
    }
)


@pytest.fixture
def send(tmp_path, use):
    """Makes senders to one collector whose clock obeys."""
    clock, faults = Clock(), Faults()
    collector = Collector(clock)

    def send(*, stands_for_thread=None):
        sender = Sender(Destination("http://c", "http/protobuf"), {}, faults, tmp_path / "t.jsonl", collector)
        if stands_for_thread is not None:
            sender._thread = stands_for_thread
        return sender

    send.clock, send.collector, send.faults = clock, collector, faults
    return send


def dropped(faults):
    return {reason: count for (signal, reason), count in faults.dropped.items() if signal == "tracing"}


class TestTheEndWithACollector:
    def test_that_answers(self, use, caplog, monkeypatch):
        caplog.set_level(logging.WARNING)
        monkeypatch.setattr(
            collectors, "PATIENCE", 100.0
        )  # its thread imports the SDK; the machine may be busy
        exporter = use(Exporter())
        callback = Telemetry(otlp_endpoint="http://c")
        made = fit(callback)
        made.test(Tiny(), datamodule=TinyData(), verbose=False)
        assert exporter.received == [span["name"] for span in only_run().spans]
        assert exporter.is_shut_down
        assert not senders()
        assert not caplog.records

    def test_that_never_answers(self, use, caplog, monkeypatch):
        caplog.set_level(logging.WARNING)
        monkeypatch.setattr(collectors, "PATIENCE", 0.0)
        monkeypatch.setattr(collectors, "_BACK_OFF", (3600.0, 7200.0))
        exporter = use(Exporter(holds=True))

        class Asked(Callback):
            def on_train_end(self, *_):
                assert exporter.asked.wait(100)

        made = fit(Telemetry(otlp_endpoint="http://c"), Asked())
        run = only_run()
        fitted = len(run.spans)
        assert run.metrics["telemetry_dropped_total"][("reason", "deadline"), ("signal", "tracing")] == fitted
        (line,) = [record.getMessage() for record in caplog.records]
        assert (
            line
            == f"tracing: {fitted} of {fitted} spans did not reach http://c; they are in {run.dir}/traces.jsonl"
        )
        made.test(Tiny(), datamodule=TinyData(), verbose=False)
        exporter.go.set()
        for thread in senders():
            thread.join()
        lost = run.metrics["telemetry_dropped_total"]
        assert sum(lost[key] for key in lost if ("signal", "tracing") in key) == len(run.spans)
        assert len(exporter.requests) == 1
        assert len(caplog.records) == 2

    def test_the_interpreter_does_not_wait_for_one_that_never_answers(self, workshop):
        code = (
            "import sys, threading\n"
            "from pathlib import Path\n"
            "from liquid_telemetry.observe.guard import Faults\n"
            "from liquid_telemetry.tracing.endpoint import Destination\n"
            "from liquid_telemetry.tracing.send import Sender\n"
            "asked = threading.Event()\n"
            "Destination.build = lambda _: (asked.set(), threading.Event().wait())\n"
            "sender = Sender(Destination('http://c', 'grpc'), {}, Faults(), Path('t'))\n"
            "sender.put(sys.argv[1:])\n"
            "asked.wait()\n"
            "sender.close()\n"
            "print('end')\n"
        )
        ended = run_python(code, SPAN)
        assert ended.stdout == "end\n"
        assert "1 of 1 spans did not reach http://c" in ended.stderr


class TestPatience:
    def test_what_was_waited_in_vain_is_not_waited_again(self, use, send):
        use(Exporter(holds=True))
        waits = []
        for _ in range(3):
            thread = Joined(send.clock)
            sender = send(stands_for_thread=thread)
            sender.put([SPAN])
            sender.close()
            waits += thread.timeouts
        assert waits == [PATIENCE, 0.0, 0.0]
        assert dropped(send.faults) == {"deadline": 3}

    def test_it_comes_back_when_the_collector_answers(self, use, send):
        use(Exporter())
        send.collector.failed()
        send.collector.waited_in_vain(PATIENCE)
        send.clock.time += 1
        sender = send()
        sender.put([SPAN])
        sender._queue.put(None)
        sender._thread.join()
        assert send.collector.patience == PATIENCE
        sender.close()
        assert not send.faults.dropped

    def test_putting_and_joining_share_it(self, use, send):
        use(Exporter(holds=True))
        thread, offered = Joined(send.clock), []

        class Full:
            def put(self, item, timeout):
                offered.append(timeout)
                send.clock.time += 1
                raise queue.Full

            def put_nowait(self, item):
                raise queue.Full

        sender = send(stands_for_thread=thread)
        real, sender._queue = sender._queue, Full()
        sender.put([SPAN, SPAN])
        sender.close()
        real.put(None)
        assert offered == [PATIENCE]
        assert thread.timeouts == [PATIENCE - 1]
        assert dropped(send.faults) == {"queue_full": 2}

    def test_a_clean_end_leaves_it_whole(self, use, send):
        exporter = use(Exporter())
        sender = send()
        sender.put([SPAN])
        sender.close()
        assert send.collector.patience == PATIENCE
        assert exporter.received == ["a"]

    def test_a_thread_that_has_died_is_not_waited_for(self, use, send, caplog):
        use(Exporter())
        thread = Joined(send.clock, alive=False)
        sender = send(stands_for_thread=thread)
        sender._queue.put(None)
        sender._offered = 4
        sender.close()
        assert not thread.timeouts
        assert dropped(send.faults) == {"no_exporter": 4}


class TestSending:
    def test_a_collector_that_failed_is_left_alone_for_a_while(self, use, send):
        exporter = use(Exporter(takes=False))
        for step, requests in ((0.0, 1), (0.5, 1), (0.5, 2), (1.0, 2), (1.0, 3)):
            send.clock.time += step
            sender = send()
            sender.put([SPAN])
            sender._queue.put(None)
            sender._thread.join()
            assert len(exporter.requests) == requests
        assert dropped(send.faults) == {"collector_unreachable": 5}
        exporter.takes = True
        send.clock.time += 4
        sender = send()
        sender.put([SPAN])
        sender.close()
        assert not send.collector.is_failing
        assert dropped(send.faults) == {"collector_unreachable": 5}

    def test_what_waits_for_a_slow_collector_goes_in_one_request(self, use, send):
        exporter = use(Exporter(holds=True))
        sender = send()
        sender.put([SPAN])
        exporter.asked.wait()
        for _ in range(3):
            sender.put([SPAN, SPAN])
        exporter.go.set()
        sender.close()
        assert list(map(len, exporter.requests)) == [1, 6]

    def test_what_happens_after_the_end_is_not_counted(self, use, send):
        exporter = use(Exporter(holds=True))
        send.collector.waited_in_vain(PATIENCE)
        sender = send()
        sender.put([SPAN])
        exporter.asked.wait()
        sender.put([SPAN])
        sender.close()
        exporter.go.set()
        sender._thread.join()
        assert exporter.received == ["a"]
        assert dropped(send.faults) == {"deadline": 2}

    def test_what_the_sdk_says_is_told_in_one_line_in_mid_run_and_one_at_the_end(self, use, send, caplog):
        use(Exporter(takes=False, says=["connection refused", "given up"]))
        sender = send()
        sender.put([SPAN])
        eventually(lambda: send.faults.dropped)
        sender.put([SPAN])
        sender.close()
        logging.getLogger(SDK_LOGGER).warning("of the user's own exporter")
        assert [record.getMessage() for record in caplog.records] == [
            "tracing: http://c takes no spans, and is tried again (connection refused)",
            f"tracing: 2 of 2 spans did not reach http://c; they are in {sender._file} (connection refused)",
            "of the user's own exporter",
        ]

    @pytest.mark.faulty
    def test_an_exporter_that_cannot_be_built(self, send, monkeypatch):
        monkeypatch.setattr(Destination, "build", lambda _: 1 / 0)
        sender = send()
        sender.put([SPAN])
        sender._thread.join()
        sender.close()
        assert send.faults.errors == {("tracing", "ZeroDivisionError"): 1}
        assert dropped(send.faults) == {"no_exporter": 1}


def test_a_fit_has_no_thread_of_ours(use):
    use(Exporter())
    before, during = set(threading.enumerate()), []

    class Look(Callback):
        def on_train_batch_end(self, *_):
            during.append({thread.name for thread in set(threading.enumerate()) - before})

    fit(Telemetry(), Look())
    assert not any(during)
    fit(OpenTelemetrySpans(otlp_endpoint="http://c"), Look())
    assert during[-1] == {"liquid-telemetry-otlp"}
    assert set(threading.enumerate()) == before
