"""When a silence is a stall, and what is told of it."""

import json
import os
import shutil

import pytest
from servers import eventually

from liquid_telemetry import files
from liquid_telemetry.exporter.outcome import Outcome
from liquid_telemetry.exporter.runs import Run
from liquid_telemetry.exporter.stall_events import Stalls
from liquid_telemetry.exporter.stalls import Silence, expectation, find_stall
from liquid_telemetry.signals import EVENTS
from liquid_telemetry.spool import Pulse, RunRecord, RunSeat, read_pulse


class TestExpectation:
    @pytest.mark.parametrize(
        ("phase", "first", "later"),
        [
            ("start-up", 3600, 3600),
            ("first batch", 1800, 1800),
            ("batch", 60, 60),
            ("epoch", 900, 300),
            ("validation", 900, 300),
            ("test", 900, 300),
            ("predict", 900, 300),
            ("checkpoint", 900, 300),
            ("end", 1800, 1800),
            ("one of a newer version", 900, 300),
        ],
    )
    def test_each_phase_has_its_own(self, phase, first, later):
        assert expectation(Pulse(phase, 0.0), 60.0) == 1 + first
        assert expectation(Pulse(phase, 0.0, seen=1), 60.0) == 1 + later
        assert expectation(Pulse(phase, 0.0), 2.0) == 1 + first / 30

    @pytest.mark.parametrize(
        ("seen", "longest", "second", "expected"),
        [
            (1, 10, 0, 60),
            (1, 100, 0, 500),
            (2, 100, 90, 450),
            (9, 100, 20, 120),
            (9, 100, 1, 120),
            (9, 1000, 1, 1200),
            (9, 1000, 900, 4500),
        ],
    )
    def test_it_is_learned_from_the_two_longest_silences(self, seen, longest, second, expected):
        assert expectation(Pulse("batch", 0.0, seen, longest, second), 60.0) == 1 + expected


class TestSilence:
    @pytest.fixture
    def silence(self, tmp_path):
        return Silence(tmp_path / "0.pulse")

    @staticmethod
    def beat(silence, at, phase="batch"):
        silence._path.write_bytes(Pulse(phase, at).to_bytes())

    @staticmethod
    def look(silence, *times, **options):
        for now in times:
            silence.look(now, **options)
        return silence.seconds

    def test_it_ends_with_every_pulse(self, silence):
        self.beat(silence, 1.0)
        assert self.look(silence, 100, 101, 102.5) == 2.5
        self.beat(silence, 2.0)
        assert self.look(silence, 103) == 0
        assert self.look(silence, 104) == 1

    def test_only_what_was_looked_at_counts(self, silence):
        """Neither a busy or suspended exporter nor a clock that jumps makes a stall."""
        self.beat(silence, 1.0)
        assert self.look(silence, 0, 3600) == 5
        assert self.look(silence, 1800) == 5
        assert self.look(silence, 1801) == 6

    def test_the_dead_are_silent_no_longer(self, silence):
        self.beat(silence, 1.0)
        assert self.look(silence, 0, 4) == 4
        assert self.look(silence, 8, 12, alive=False) == 4

    def test_what_never_beats_is_not_judged(self, silence):
        assert self.look(silence, *range(0, 10_000, 5)) > 0
        assert silence.stall(0, 1.0) is None

    @pytest.mark.parametrize(
        "damage",
        [
            b"",
            b"\0" * 512,
            b"[]",
            b"{}",
            b'{"phase": ["batch"], "at": 1}',
            b'{"phase": "batch", "at": 2, "longest": "long"}',
            b'{"phase": "batch", "at": 2, "longest": NaN}',
            b'{"phase": "batch", "at": 2, "ask": "9"}',
            b"[" * 512,
        ],
    )
    def test_a_damaged_pulse_is_none(self, silence, damage):
        self.beat(silence, 1.0)
        self.look(silence, 0)
        silence._path.write_bytes(damage)
        assert read_pulse(silence._path) is None
        assert self.look(silence, 4) == 4
        assert silence.pulse == Pulse("batch", 1.0)

    def test_a_newer_version_may_say_more(self, silence):
        silence._path.write_text('{"phase": "batch", "at": 1.0, "mood": "good"}')
        assert read_pulse(silence._path) == Pulse("batch", 1.0)

    def test_a_stall_in_words(self, silence):
        silence._path.write_bytes(Pulse("batch", 1.0, epoch=3, batch=41).to_bytes())
        assert self.look(silence, *range(0, 61, 5), 61) == 61
        assert silence.stall(0, 60.0) is None
        self.look(silence, 62)
        stall = silence.stall(0, 60.0)
        assert str(stall) == (
            "stalled: no progress for 62 s in the phase batch after epoch 3, batch 41; "
            "at most 61 s were to be expected"
        )


class TestRanks:
    """One that waits for another has not stalled."""

    @pytest.fixture
    def ranks(self, tmp_path):
        found = []
        for number in (0, 1, 2):
            path = tmp_path / f"{number}.pulse"
            path.write_bytes(Pulse("batch", 1.0).to_bytes())
            found.append((number, Silence(path)))
            found[-1][1].look(0)
        return found

    def test_all_must_be_silent(self, ranks):
        for now in (5, 10, 15):
            ranks[0][1].look(now)
            ranks[2][1].look(now)
        assert find_stall(ranks, 10.0) is None
        for now in (5, 10, 15):
            ranks[1][1].look(now)
        assert find_stall(ranks, 10.0).rank == 0
        assert find_stall(ranks[1:], 10.0).rank == 1

    def test_one_without_a_pulse_is_not_waited_for(self, ranks, tmp_path):
        for now in (5, 10, 15):
            ranks[0][1].look(now)
        assert find_stall([ranks[0], (1, Silence(tmp_path / "none"))], 10.0).rank == 0

    def test_nobody(self):
        assert find_stall([], 10.0) is None


class Clock:
    """Lets a run be looked at every five seconds."""

    def __init__(self, run):
        self.run, self.now = run, 0.0
        self.pass_by(0)

    def pass_by(self, seconds):
        """Let so much time go by; the run is seen once at its end at least."""
        end = self.now + seconds
        while True:
            self.now = min(self.now + 5, end)
            assert list(self.run.refresh(self.now)) == []
            if self.now == end:
                return self.run.state


@pytest.fixture
def start(trainer, spool):
    """A process whose pulse has been seen, and the run as the exporter keeps it."""

    def take(**record):
        job = trainer(**record)
        job.beat(epoch=2, batch=7)
        return job, Clock(Run(spool / "runs" / job.run_id, patience=10))

    return take


class TestRun:
    def test_it_stalls_and_recovers(self, start):
        job, clock = start()
        assert clock.pass_by(11) == "running"
        assert clock.pass_by(1) == "stalled"
        job.beat(at=2.0)
        assert clock.pass_by(1) == "running"
        assert clock.run.stall is None

    def test_another_phase_has_its_own_patience(self, start):
        job, clock = start()
        job.beat("validation", at=2.0)
        clock.pass_by(0)
        assert clock.pass_by(150) == "running"
        assert clock.pass_by(2) == "stalled"

    def test_a_run_that_starts_may_take_long(self, start):
        job, clock = start(status="starting")
        job.beat("start-up", at=2.0)
        clock.pass_by(0)
        assert clock.pass_by(600) == "starting"
        assert clock.pass_by(2) == "stalled"

    def test_one_that_ended_is_not_judged(self, start):
        """It may be that `test` goes on after `fit`."""
        job, clock = start()
        job.update(status="completed")
        clock.pass_by(1000)
        assert clock.run.stall is None

    def test_one_that_is_killed_while_stalled_died_of_it(self, start):
        job, clock = start()
        clock.pass_by(12)
        job.kill()
        clock.pass_by(1)
        assert clock.run.stalled

    def test_one_that_is_killed_when_it_goes_on_again_did_not(self, start):
        job, clock = start()
        clock.pass_by(12)
        job.beat(at=2.0)
        job.kill()
        clock.pass_by(1)
        assert not clock.run.stalled

    def test_one_that_died_before_it_was_silent_for_long(self, start):
        job, clock = start()
        clock.pass_by(5)
        job.kill()
        clock.pass_by(100)
        assert not clock.run.stalled

    def test_a_rank_that_waits_for_another(self, start, trainer):
        first, clock = start(rank=0)
        second = trainer(run_id=first.run_id, rank=1)
        for at in range(10):
            second.beat(at=float(at))
            assert clock.pass_by(10) == "running"
        assert clock.pass_by(12) == "stalled"

    def test_a_spool_that_is_deleted(self, start, spool):
        job, _ = start()
        shutil.rmtree(spool / "runs")
        job.beat(at=2.0)
        job.publish("# EOF\n")
        job.beat(at=3.0)
        assert read_pulse(spool / "runs" / job.run_id / "0.pulse") == Pulse("batch", 3.0)


class Faults:
    def __init__(self):
        self.errors = []

    def report(self, what, error):
        self.errors.append((what, error))


class TestEvents:
    @pytest.fixture(autouse=True)
    def tell(self, start, tmp_path):
        """Let time go by and return the names of all events, once there are so many."""
        self.log, self.faults = tmp_path / "events.jsonl", Faults()
        self.log.write_text('{"event": "training_started"}\n')
        self.stalls = Stalls(self.faults)
        self.job, self.clock = start(events=str(self.log), trace_id="ab" * 16, stage="fit")

    def events(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()[1:]]

    def names(self, count):
        eventually(lambda: len(self.events()) >= count)
        assert self.faults.errors == []
        return [event["event"].removeprefix("training_") for event in self.events()]

    def pass_by(self, *seconds):
        for some in seconds:
            self.clock.pass_by(some)
            self.stalls.tell({self.job.run_id: self.clock.run})
        threads = [told._thread for told in self.stalls._open.values()]
        for thread in threads:
            thread.join()

    def test_what_they_say(self):
        self.pass_by(15, 30)
        self.job.beat(at=2.0)
        self.pass_by(1)
        assert self.names(2) == ["stalled", "recovered"]
        stalled, recovered = self.events()
        common = {
            "logger": "liquid_telemetry.exporter",
            "run_id": self.job.run_id,
            "model_name": "CfC",
            "trace_id": "ab" * 16,
            "stage": "fit",
            "phase": "batch",
            "epoch": 2,
            "batch": 7,
            "rank": 0,
            "pid": self.job.pid,
        }
        for event in (stalled, recovered):
            assert event.pop("timestamp").endswith("Z")
        assert stalled.pop("process_state") in ("sleeping", "running")
        assert stalled == {
            "level": "error",
            "event": "training_stalled",
            "seconds_without_progress": 15,
            "expected_seconds": 11,
            "stacks": None,
            "stacks_missing": "the process has no signal for it: only Linux has, and not all were free",
            **common,
        }
        assert recovered == {
            "level": "info",
            "event": "training_recovered",
            "seconds_without_progress": 45,
            **common,
        }
        assert EVENTS["training_stalled"].fields[-1] == "stacks_missing"

    def test_a_stall_is_told_once_and_the_next_one_again(self):
        self.pass_by(15, 15, 15)
        assert self.names(1) == ["stalled"]
        self.job.beat(at=2.0)
        self.pass_by(1, 1)
        self.pass_by(15, 15)
        self.job.beat(at=3.0)
        self.pass_by(1)
        assert self.names(4) == ["stalled", "recovered", "stalled", "recovered"]

    def test_one_that_is_killed_while_stalled_has_not_recovered(self):
        self.pass_by(15)
        self.job.kill()
        self.pass_by(1, 30)
        assert self.names(1) == ["stalled"]

    def test_the_silence_of_the_dead_is_not_told(self):
        self.pass_by(8)
        self.job.kill()
        self.pass_by(1, 30)
        assert self.events() == []

    def test_nor_that_of_a_rank_whose_run_has_failed(self, trainer):
        """It waits for a peer that is dead."""
        other = trainer(run_id=self.job.run_id, rank=1)
        other.beat()
        other.kill()
        self.clock.run.outcome = Outcome("failed", "killed", died=1)
        self.pass_by(15, 30)
        assert self.events() == []

    def test_a_log_that_cannot_be_written_is_counted(self):
        self.log.unlink()
        self.log.mkdir()
        self.pass_by(15)
        self.pass_by(1)
        ((what, error),) = self.faults.errors
        assert (what, type(error)) == ("closing", IsADirectoryError)

    def test_one_without_a_log(self):
        self.log.unlink()
        self.pass_by(15, 1)
        assert not self.log.exists()
        assert self.faults.errors == []

    def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing(self, monkeypatch):
        before, write = self.log.read_bytes(), os.write
        monkeypatch.setattr(files.os, "write", lambda descriptor, data: write(descriptor, data[:20]))
        with pytest.raises(OSError, match="No space left"):
            files.append_line(self.log, "a line that is longer than that\n")
        assert self.log.read_bytes() == before


def test_a_pulse_lies_in_place(spool):
    seat = RunSeat.take(spool, RunRecord("run", "CfC"))
    path = spool / "runs" / "run" / "0.pulse"
    inodes = set()
    for at in (1.0, 123456.789012):
        pulse = Pulse("first batch", at, 3, 1234.567, 0.001, 10**9, 10**12, 64, 63)
        seat.beat(pulse)
        assert read_pulse(path) == pulse
        assert path.stat().st_size == 512
        inodes.add(path.stat().st_ino)
    assert len(inodes) == 1
    seat.release()
    seat.beat(Pulse("end", 2.0))
    assert read_pulse(path) == pulse
