"""A process that has ended but is not waited for yet has no memory that could be told."""

import os
import subprocess
import sys

from liquid_telemetry.memory import memory_of


def test_of_a_process_that_has_ended():
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert memory_of(child.pid) is None
    child.wait()
    assert memory_of(child.pid) is None
    assert memory_of(os.getpid()).process > 0
