"""A process that can be asked for its stacks and hangs, as its argument says, until a byte comes on stdin."""

import ctypes
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

from liquid_telemetry.metrics.stacks import StackFile
from liquid_telemetry.spool import identity


def hangs_in_python():
    while not select.select([0], [], [], 0)[0]:
        time.sleep(0.01)


def hangs_in_a_call_that_lets_others_run():
    ctypes.CDLL(None).read(0, ctypes.create_string_buffer(1), 1)


def hangs_with_the_lock_of_the_interpreter():
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)


def sleeps_with_the_lock_of_the_interpreter():
    ctypes.PyDLL(None).sleep(100)
    os.read(0, 1)


def hangs_with_all_signals_blocked():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    os.read(0, 1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


def waits_for_a_thread_that_hangs():
    thread = threading.Thread(target=hangs_in_python)
    thread.start()
    thread.join()


def caught():
    """The signals that have a handler, but for the two that the C library keeps from programs."""
    (mask,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "SigCgt" in line)
    return {n for n in signal.valid_signals() if int(mask.split()[1], 16) >> n - 1 & 1}


def hang(path, mode):
    before = caught()
    stacks = StackFile(Path(path))
    known = {"pid": os.getpid(), "identity": identity(), "ask": stacks.ask, "dump": stacks.dump}
    print(json.dumps(known), flush=True)
    globals()[mode]()
    stacks.close()
    print(json.dumps({"given_back": caught() == before}), flush=True)


if sys.argv[3:] == ["in a thread"]:
    thread = threading.Thread(target=hang, args=sys.argv[1:3])
    thread.start()
    thread.join()
else:
    hang(*sys.argv[1:])
