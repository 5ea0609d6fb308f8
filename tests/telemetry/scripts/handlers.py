"""A fit amid signals, timers and handlers of the program's own; says what became of them."""

import faulthandler
import json
import os
import signal
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

sys.path.insert(0, sys.argv[1])

from lightning.pytorch import Callback  # noqa: E402
from tiny import fit, workplace  # noqa: E402

from liquid_telemetry import Telemetry  # noqa: E402

NUMBERS = sorted(signal.valid_signals())


def state():
    status = Path("/proc/self/status").read_text().splitlines()
    wanted = ("SigCgt:", "SigIgn:", "SigBlk:")
    masks = {line.split()[0]: int(line.split()[1], 16) for line in status if line.startswith(wanted)}
    return {
        "caught": [number for number in NUMBERS if masks["SigCgt:"] >> number - 1 & 1],
        "ignored": [number for number in NUMBERS if masks["SigIgn:"] >> number - 1 & 1],
        "blocked": [number for number in NUMBERS if masks["SigBlk:"] >> number - 1 & 1],
        "handlers": {int(number): repr(signal.getsignal(number)) for number in NUMBERS},
    }


class During(Callback):
    def on_train_batch_end(self, *_):
        found["during"] = state()


def mine(number, frame):
    found["mine"] = found.get("mine", 0) + 1


def threads():
    return {task.name for task in Path("/proc/self/task").iterdir()}


found = {}
middle = (signal.SIGRTMIN + signal.SIGRTMAX) // 2  # where ours are looked for first
signal.signal(middle, mine)
signal.signal(middle + 2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [middle + 3])
signal.signal(signal.SIGUSR2, mine)
with Path("told").open("w") as own:
    faulthandler.enable(own)
    others = threads()
    # Never due here: it reads the frames of threads that go on running, which crashes now and then.
    faulthandler.dump_traceback_later(3600, file=own)
    (timer,) = threads() - others
    with workplace(Path.cwd()):
        fit(max_epochs=1)  # what the libraries install for ever
        found["before"] = state()
        faulthandler.register(
            middle + 1, own
        )  # lost as any fit ends: Lightning puts back what Python knows of
        fit(During(), Telemetry(), max_epochs=1)
    found["after"] = state()
    for number in (middle, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    found["timer"] = timer in threads()
    faulthandler.cancel_dump_traceback_later()
    found["enabled"] = faulthandler.is_enabled()
    faulthandler.disable()
    faulthandler.unregister(middle + 1)
print(json.dumps({**found, "middle": middle}))
