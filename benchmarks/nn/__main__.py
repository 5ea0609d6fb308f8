"""How fast CfC and LTC are: ours in three ways, ``ncps``, and PyTorch's LSTM and GRU of the same hidden size.

*plain* is the loop over steps that everything else must equal, *PyTorch* the fast path without kernels, *kernels*
the fast path with those in C++. All are run interleaved, in a shuffled order, in one process, each for 20 ms, or once
if that takes longer; a ratio is taken within a round, and its median over the rounds is given, with quartiles.
docs/speed.md quotes the tables.

parts:
  training    forward and backward pass, with one and two threads
  inference   whole sequences without autograd
  steps       one step of a cell with carried state
  streams     one step of a stream
  memory      what a call keeps for its backward pass
  first_call  building the kernels, and loading them
  roofline    GFLOP/s of a training step beside a plain matrix product
"""

from __future__ import annotations

import argparse
import warnings

import torch

from benchmarks.nn import parts
from benchmarks.telemetry.measure import machine

PARTS = {
    "training": parts.training,
    "inference": parts.inference,
    "steps": parts.steps,
    "streams": parts.streams,
    "memory": parts.memory,
    "first_call": parts.first_call,
    "roofline": parts.roofline,
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.nn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="parts to run (default: all)")
    parser.add_argument("--rounds", type=int, default=9, help="times that everything is run (default: 9)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    print(f"Machine: {machine()}.\n", flush=True)
    for part in options.parts or PARTS:
        PARTS[part](options.rounds)


if __name__ == "__main__":
    main()
