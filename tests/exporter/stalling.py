"""A real fit that hangs in a step, as its argument says, until a byte comes on stdin or a file appears."""

import ctypes
import os
import select
import sys
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny import Tiny, TinyData, fit, loader  # noqa: E402

from liquid_telemetry import Telemetry  # noqa: E402


def hangs_in_python():
    while not select.select([0], [], [], 0)[0]:
        time.sleep(0.01)


def hangs_with_the_lock_of_the_interpreter():
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)


def hangs_while_another_rank_waits():
    while int(os.environ["LOCAL_RANK"]) == 1 and not Path("go-on").exists():
        time.sleep(0.01)


class Hangs(Tiny):
    """Hangs in the second batch of the first epoch."""

    def training_step(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (0, 1):
            globals()[sys.argv[1]]()
        return super().training_step(batch, batch_idx)


class Data(TinyData):
    """Loads training batches in a process of its own."""

    def train_dataloader(self):
        return loader(8, num_workers=1, multiprocessing_context="fork")


if __name__ == "__main__":
    ranks = {"devices": 2, "strategy": "ddp"} if "rank" in sys.argv[1] else {}
    fit(Telemetry(port=0), model=Hangs(), data=Data(), **ranks)
