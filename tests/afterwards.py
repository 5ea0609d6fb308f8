"""What comes after training, as a command line of its own: a benchmark and an export of a small checkpoint.

python afterwards.py
"""

from __future__ import annotations

import os
import sys
import warnings

import trained

from liquid_train.__main__ import main


def play() -> int:
    """Train untold, then measure and export under telemetry."""
    warnings.simplefilter("ignore")
    os.environ["LIQUID_TELEMETRY_ENABLED"] = "0"
    checkpoint = str(trained.train("best.ckpt"))
    del os.environ["LIQUID_TELEMETRY_ENABLED"]
    measured = main(["bench", "--ckpt", checkpoint, "--length", "16", "--port", "0", "--baseline", "new.json",
                     "--update-baseline"])  # fmt: skip
    return measured or main(["export", "--ckpt", checkpoint, "--target", "torch-export", "--port", "0"])


if __name__ == "__main__":
    sys.exit(play())
