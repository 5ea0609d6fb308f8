"""A process that hangs is asked for its Python stacks, and takes no harm from it."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servers import eventually

from liquid_telemetry.exporter import stacks
from liquid_telemetry.exporter.stacks import ask
from liquid_telemetry.spool import Pulse, RunRecord

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has free signals to ask by")


class Hanging:
    """A process that hangs until it is told to go on."""

    def __init__(self, path, *arguments):
        self.path = path
        command = [sys.executable, Path(__file__).with_name("hanging.py"), path, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        known = json.loads(self.process.stdout.readline())
        self.record = RunRecord("run", "CfC", pid=known["pid"], identity=known["identity"])
        self.pulse = Pulse("batch", 1.0, ask=known["ask"], dump=known["dump"])

    def status(self, name):
        text = Path(f"/proc/{self.record.pid}/status").read_text()
        return next(line for line in text.splitlines() if line.startswith(name)).split()[1]

    def sleeps(self):
        """Wait until the main thread hangs."""
        eventually(lambda: self.status("State:") == "S")

    def ask(self, **changes):
        return ask(dataclasses.replace(self.record, **changes), self.pulse, self.path)

    def go_on(self):
        """Tell it to, and return what it says of its handlers in the end."""
        said = self.process.communicate("\n", timeout=20)[0]
        assert self.process.returncode == 0
        return json.loads(said)["given_back"]


@pytest.fixture
def hanging(tmp_path):
    started = []

    def start(*arguments):
        started.append(Hanging(tmp_path / "0.stacks", *arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def functions(text):
    """The functions of each thread, the innermost first."""
    threads = [part.splitlines()[1:] for part in text.split("\n\n")]
    return [[line.rpartition(" in ")[2] for line in lines] for lines in threads]


def test_a_main_thread_that_runs_python(hanging):
    process = hanging("hangs_in_python")
    process.sleeps()
    answer = process.ask()
    assert answer.text.startswith("Current thread")
    assert functions(answer.text) == [["hangs_in_python", "hang", "<module>"]]
    assert answer.missing is None
    assert process.go_on() is True


def test_all_threads_are_told_of(hanging):
    """A wait for a lock is begun again after a signal, so each thread is asked by itself."""
    process = hanging("waits_for_a_thread_that_hangs")

    def by_each():
        text = process.ask().text
        found = functions(text)
        # A thread that runs just now, or waits for a processor, is left out.
        return text.startswith(f"Thread {process.record.pid} ") and len(found) > 1 and found

    main, other = eventually(by_each)
    assert main[-3:] == ["waits_for_a_thread_that_hangs", "hang", "<module>"]
    assert other[0] == "hangs_in_python"
    assert process.go_on() is True


@pytest.mark.parametrize(
    "how", ["hangs_in_a_call_that_lets_others_run", "hangs_with_the_lock_of_the_interpreter"]
)
def test_a_main_thread_that_is_stuck_in_c(hanging, how):
    process = hanging(how)
    process.sleeps()
    answer = process.ask()
    assert answer.text.startswith(f"Thread {process.record.pid} (")
    assert functions(answer.text) == [[how, "hang", "<module>"]]
    assert answer.state == "sleeping"
    assert process.go_on() is True


def test_a_sleep_with_the_lock_of_the_interpreter(hanging):
    """The signal ends it, as it ends every system call that is not begun again."""
    process = hanging("sleeps_with_the_lock_of_the_interpreter")
    process.sleeps()
    answer = process.ask()
    assert functions(answer.text) == [["sleeps_with_the_lock_of_the_interpreter", "hang", "<module>"]]
    assert process.go_on() is True


def test_training_outside_the_main_thread(hanging):
    process = hanging("hangs_with_the_lock_of_the_interpreter", "in a thread")
    assert process.pulse.ask is None
    eventually(lambda: "hangs_with_the_lock_of_the_interpreter" in (process.ask().text or ""))
    assert process.go_on() is True


def test_a_second_question_gets_an_answer_of_its_own(hanging):
    process = hanging("hangs_with_the_lock_of_the_interpreter")
    process.sleeps()
    first, second = process.ask(), process.ask()
    assert functions(first.text) == functions(second.text)
    assert process.go_on() is True


def test_blocked_signals_are_not_sent(hanging):
    process = hanging("hangs_with_all_signals_blocked")
    eventually(lambda: int(process.status("SigBlk:"), 16) >> process.pulse.ask - 1 & 1)
    answer = process.ask()
    assert (answer.text, answer.missing) == (None, "no thread answered")
    assert int(process.status("SigPnd:"), 16) == 0
    assert process.go_on() is True


def test_a_stopped_process_is_not_asked(hanging):
    process = hanging("hangs_in_python")
    process.process.send_signal(signal.SIGSTOP)
    eventually(lambda: process.status("State:") == "T")
    answer = process.ask()
    assert (answer.text, answer.missing) == (None, "the process is stopped by a signal")
    assert answer.state == "stopped by a signal"
    assert int(process.status("SigPnd:"), 16) == 0
    process.process.send_signal(signal.SIGCONT)
    eventually(lambda: "hangs_in_python" in (process.ask().text or ""))
    assert process.go_on() is True


def test_a_signal_that_is_on_its_way_to_a_stopped_process_does_not_kill_it(hanging, monkeypatch):
    """It may stop between the look at its state and the signal: then its handlers stay."""
    process = hanging("hangs_in_python")
    process.process.send_signal(signal.SIGSTOP)
    eventually(lambda: process.status("State:") == "T")
    with monkeypatch.context() as patch:
        patch.setattr(stacks._Process, "_letter", lambda *_: "S")
        assert process.ask().text is None
    assert int(process.status("SigPnd:"), 16) >> process.pulse.ask - 1 & 1
    assert process.ask().missing == "the process is stopped by a signal"
    process.process.send_signal(signal.SIGCONT)
    assert process.go_on() is False


def test_after_an_answer_that_came_late_it_can_be_asked_again(hanging, monkeypatch):
    process = hanging("hangs_in_python")
    process.process.send_signal(signal.SIGSTOP)
    eventually(lambda: process.status("State:") == "T")
    with monkeypatch.context() as patch:
        patch.setattr(stacks._Process, "_letter", lambda *_: "S")
        assert process.ask().text is None
    process.process.send_signal(signal.SIGCONT)
    assert "hangs_in_python" in eventually(lambda: process.ask().text)
    assert process.go_on() is True


@pytest.mark.parametrize("known", [None, "another"])
def test_another_process_with_the_pid_is_left_alone(hanging, known):
    process = hanging("hangs_in_python")
    answer = process.ask(identity=known)
    assert (answer.text, answer.missing) == (None, "the process cannot be seen from here")
    assert process.path.read_bytes() == b""
    assert process.go_on() is True


def test_a_process_that_has_gone(hanging):
    process = hanging("hangs_in_python")
    assert process.go_on() is True
    assert process.ask() == stacks.Stacks(None, "the process cannot be seen from here", None)


def test_a_process_that_has_given_its_handlers_back_is_not_signalled(hanging):
    process = hanging("hangs_in_python")
    process.path.unlink()
    answer = process.ask()
    assert answer.missing == "the process is ending, or has not answered an earlier question"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1, 0, -3, 1000])
def test_a_damaged_pulse_cannot_name_another_signal(hanging, number):
    process = hanging("hangs_in_python")
    process.pulse = Pulse("batch", 1.0, ask=int(number), dump=int(number))
    assert process.ask().missing == "no thread answered"
    assert process.go_on() is True


def test_without_signals(hanging):
    process = hanging("hangs_in_python")
    process.pulse = Pulse("batch", 1.0)
    assert process.ask().missing == "the process has no signal for it: only Linux has, and not all were free"
    eventually(lambda: process.ask().state == "sleeping")
