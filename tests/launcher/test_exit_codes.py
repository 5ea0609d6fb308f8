"""The launcher's exit code is the command's, as a shell would give it."""

import os
import signal
import sys

import pytest

ENDS = [
    ("pass", 0),
    ("import sys; sys.exit(3)", 3),
    ("raise ValueError", 1),
    ("import os; os._exit(255)", 255),
    ("import os; os.abort()", 134),
    ("import os; os.kill(os.getpid(), 9)", 137),
    ("import ctypes; ctypes.string_at(0)", 139),
    ("import os, signal; signal.signal(15, signal.SIG_DFL); os.kill(os.getpid(), 15)", 143),
    ("import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), 2)", 130),
]


@pytest.mark.parametrize(("code", "expected"), ENDS)
def test_the_commands_own(finish, code, expected):
    assert finish(sys.executable, "-c", code)[0] == expected


def test_a_command_that_is_not_there(finish):
    assert finish("no-such-command") == (127, "", "liquid-train run: no-such-command: command not found\n")


@pytest.mark.parametrize(
    ("name", "content", "mode", "reason"),
    [
        ("plain", "x = 1\n", 0o644, "permission denied"),
        ("folder", None, 0o755, "permission denied"),
        ("garbage", "\x7fELF nonsense", 0o755, "exec format error"),
        ("lost", "#!/no/such/interpreter\n", 0o755, "its interpreter is missing"),
    ],
)
def test_a_file_that_is_not_a_program(finish, tmp_path, name, content, mode, reason):
    path = tmp_path / name
    path.write_text(content) if content else path.mkdir()
    path.chmod(mode)
    assert finish(path) == (126, "", f"liquid-train run: {path}: cannot be executed ({reason})\n")


def test_streams_arguments_environment_and_descriptors_pass_through(start, tmp_path, monkeypatch):
    monkeypatch.setenv("OF_THE_USER", "ä b")
    code = (
        "import os, sys, signal\n"
        "print(sys.stdin.read(), os.environ['OF_THE_USER'], *sys.argv[1:], signal.pthread_sigmask(0, []))\n"
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, os.read(int(sys.argv[-1]), 9))\n"
        "print('to stderr', file=sys.stderr)"
    )
    reading, writing = os.pipe()
    os.write(writing, b"inherited")
    process = start(
        sys.executable, "-c", code, "--", "--lr", "a b", reading, pass_fds=[reading], before=["nohup"]
    )
    out, error = process.communicate("from stdin")
    assert (process.returncode, error) == (0, "to stderr\n")
    assert out == f"from stdin ä b -- --lr a b {reading} set()\nTrue b'inherited'\n"
    os.close(reading)
    os.close(writing)


def test_an_unusable_spool_keeps_nothing_from_running(finish, spool):
    spool.chmod(0o777)
    code, out, error = finish("sh", "-c", "echo trains; exit 3")
    assert (code, out) == (3, "trains\n")
    (line,) = error.splitlines()
    assert line.startswith("liquid-train run: telemetry: SpoolError: telemetry spool ")


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGTERM])
def test_what_a_parent_has_ignored(finish, number):
    """Some parents leave SIGCHLD ignored: ends would be lost."""
    ignoring = [sys.executable, "-c", f"import os, signal, sys; signal.signal({number}, signal.SIG_IGN); "
                "os.execvp(sys.argv[1], sys.argv[1:])"]  # fmt: skip
    assert finish("sh", "-c", "exit 5", before=ignoring)[0] == 5
