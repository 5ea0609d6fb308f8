"""Signals reach the command once, however they are sent."""

import os
import pty
import signal
import sys
import termios

import psutil
import pytest
from servers import eventually

NOTES = """
import os, signal, sys, time
def note(number, frame):
    os.write(1, b"%d\\n" % number)
    if number in (signal.SIGTERM, signal.SIGINT): sys.exit(40 + number)
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, note)
os.write(1, b"ready\\n")
# Not signal.pause(): a signal just before it would be noted after the next one only.
while True: time.sleep(0.05)
"""


@pytest.mark.parametrize(
    "name", ["SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGWINCH", "SIGRTMIN"]
)
def test_what_the_launcher_gets_is_passed_on_once(start, name):
    number = int(getattr(signal, name))
    process = start(sys.executable, "-c", NOTES)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == f"{number}\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) == ("15\n", "")
    assert process.returncode == 55


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_command_that_minds_none_dies_of_it(start, number, code):
    process = start("sh", "-c", "echo ready; exec sleep 60")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(30) == code


def test_ctrl_c_reaches_the_command_once(start):
    """The kernel sends it to every process of the terminal's foreground group."""
    controller, terminal = pty.openpty()
    settings = termios.tcgetattr(terminal)
    settings[3] &= ~(termios.ECHO | termios.ECHOCTL)
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
    take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    notes = (
        NOTES.replace("sys.exit(40 + number)", "signal.setitimer(signal.ITIMER_REAL, 0.5)")
        .replace("os.write(1", "os.write(2")
        .replace(
            "def note(number, frame):",
            "def note(number, frame):\n    if number == signal.SIGALRM: sys.exit(7)",
        )
    )
    process = start(
        sys.executable,
        "-c",
        notes,
        before=[sys.executable, "-c", take],
        stdin=terminal,
        start_new_session=True,
    )
    assert process.stderr.readline() == "ready\n"
    os.write(controller, b"\x03")
    assert process.communicate(timeout=30)[1] == f"{int(signal.SIGINT)}\n"
    assert process.returncode == 7
    os.close(terminal)
    os.close(controller)


def test_a_launcher_that_was_stopped_loses_no_signal(start):
    """A stopped launcher passes on what came meanwhile."""
    process = start(sys.executable, "-c", NOTES)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert process.wait(30) == 55
