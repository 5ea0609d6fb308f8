"""What comes after training, as a command line of its own: a small checkpoint is exported, served and measured.

python afterwards.py
"""

from __future__ import annotations

import os
import sys
import time
import warnings

import serving
import trained

from liquid_train.__main__ import main

SERVED = 4.0
"""Seconds: several scrapes."""


def play() -> int:
    """Train untold, then export, serve and measure under telemetry."""
    warnings.simplefilter("ignore")
    os.environ["LIQUID_TELEMETRY_ENABLED"] = "0"
    checkpoint = str(trained.train("best.ckpt"))
    del os.environ["LIQUID_TELEMETRY_ENABLED"]
    # The benchmark last: its verdict is a gauge, which a later run of the model hides if nobody has scraped it yet.
    exported = main(["export", "--ckpt", checkpoint, "--target", "torch-export", "--port", "0"])
    with serving.command("--ckpt", checkpoint, "--environment", "staging"):
        time.sleep(SERVED)
    options = ["--length", "16", "--port", "0", "--baseline", "new.json", "--update-baseline"]
    return exported or main(["bench", "--ckpt", checkpoint, *options])


if __name__ == "__main__":
    sys.exit(play())
