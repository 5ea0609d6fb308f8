"""What observing a training loop costs, beside what people use today.

The loop is a Linear(16, 2) on batches of 8, so that what is added is large against it. Variants are run interleaved, in
a shuffled order, in one process; what one adds is the median over the rounds of its time less that of the bare loop in
the same round. Every part prints a Markdown table; docs/overhead.md quotes them.

parts:
  batches     what each callback, logger and progress bar adds to a batch
  alternate   the bare loop, an empty callback, telemetry and a callback by hand in turns within one run
  own         our own code, replayed without Lightning
  scrapes     the distribution of the time of a batch, with 0, 1 and 10 scrapes a second
  collector   a collector that answers, is slow, is dead
  ends        import, setup and end, in new interpreters
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.telemetry.alternate import alternate
from benchmarks.telemetry.batches import batches
from benchmarks.telemetry.collectors import collectors
from benchmarks.telemetry.ends import ends
from benchmarks.telemetry.measure import machine
from benchmarks.telemetry.own import own
from benchmarks.telemetry.scrapes import scrapes

PARTS = ("batches", "alternate", "own", "scrapes", "collector", "ends")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.telemetry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="parts to run (default: all)")
    parser.add_argument("--batches", type=int, default=500, help="batches in an epoch (default: 500)")
    parser.add_argument(
        "--rounds", type=int, default=21, help="times that every variant is run (default: 21)"
    )
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of variants for `batches`")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print(f"Machine: {machine()}.\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LIQUID_TELEMETRY_SPOOL"] = str(folder / "spool")
        few = max(1, options.rounds // 4)
        run = {
            "batches": lambda: batches(folder, options.batches, options.rounds, options.only),
            "alternate": lambda: alternate(folder, 100 * options.batches),
            "own": lambda: own(folder, 3 * options.rounds),
            "scrapes": lambda: scrapes(folder, 8 * options.batches, few),
            "collector": lambda: collectors(folder, 2 * options.batches, few),
            "ends": lambda: ends(few),
        }
        for part in options.parts or PARTS:
            run[part]()


if __name__ == "__main__":
    main()
