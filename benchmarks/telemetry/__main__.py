"""What observing a training loop costs, beside what people use today.

The loop is a Linear(16, 2) on batches of 8, so that what is added is large against it. Variants are run interleaved, in
a shuffled order, in one process; what one adds is the median over the rounds of its time less that of the bare loop in
the same round. Every part prints a Markdown table; docs/overhead.md quotes them.

parts:
  batches     what each callback, logger and progress bar adds to a batch
  alternate   the bare loop, an empty callback, telemetry and a callback by hand in turns within one run
  own         our own code, replayed without Lightning
  growth      the same, early and late in a run of 200,000 batches
  scrapes     the distribution of the time of a batch, with 0, 1 and 10 scrapes a second
  collector   a collector that answers, is slow, is dead: batches, and the end of fit
  ends        import, setup and end, in new interpreters

examples:
  python -m benchmarks.telemetry own alternate
  python -m benchmarks.telemetry batches --only everything Rich --rounds 7
"""

from __future__ import annotations

import argparse
import logging
import warnings

import torch

from benchmarks.telemetry.alternate import alternate
from benchmarks.telemetry.batches import batches
from benchmarks.telemetry.ends import collectors, ends
from benchmarks.telemetry.growth import growth
from benchmarks.telemetry.measure import machine, scratch
from benchmarks.telemetry.own import own
from benchmarks.telemetry.scrapes import scrapes

PARTS = ("batches", "alternate", "own", "growth", "scrapes", "collector", "ends")


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
        "--rounds", type=int, default=15, help="times that every variant is run (default: 15)"
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
    with scratch() as folder:
        few = max(1, options.rounds // 3)
        run = {
            "batches": lambda: batches(folder, options.batches, options.rounds, options.only),
            "alternate": lambda: alternate(folder, max(2, options.batches // 10)),
            "own": lambda: own(folder, 4 * options.rounds),
            "growth": lambda: growth(folder, 400 * options.batches, few),
            "scrapes": lambda: scrapes(folder, 8 * options.batches, few),
            "collector": lambda: collectors(6 * options.batches, few),
            "ends": lambda: ends(4 * options.batches, few),
        }
        for part in options.parts or PARTS:
            run[part]()


if __name__ == "__main__":
    main()
