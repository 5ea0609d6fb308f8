"""`liquid-train bench`: how fast a checkpoint infers, and whether that has become slower."""

from __future__ import annotations

import argparse
import json
import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from liquid_train.cli.export import add_place
from liquid_train.cli.options import Options, at_least
from liquid_train.cli.terminate import exit_on_sigterm

if TYPE_CHECKING:
    from liquid_telemetry.command import CommandRun
    from liquid_telemetry.metrics.store import Store
    from liquid_train.bench.benchmark import Outcome
    from liquid_train.tasks.load import Trained

REGRESSED = 2
DESCRIPTION = """Time the inference of a checkpoint on fixed inputs and compare it with this machine's baseline.

  liquid-train bench --ckpt runs/RUN/checkpoints/best.ckpt
  liquid-train bench --ckpt FILE --batch 1 64 --length 29 --update-baseline
  liquid-train bench --ckpt FILE --baseline vowels.json --json --plot history.png

The first run on a machine becomes the baseline of this architecture. Later runs are slower only when the whole
interval of the ratio of medians is above --allowed, in seconds and also in units of a reference work that is timed in
turn with the model, so that a busy machine is no regression. docs/bench.md has the method.

exit codes: 0 no regression found; 2 slower than allowed; 1 wrong options, or nothing to compare with."""


def ratio(text: str) -> float:
    """Read a ratio above 1.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = _number(text)
    if not 1 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 1, such as 1.1 for 10 % slower")
    return value


def share(text: str) -> float:
    """Read a confidence.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = _number(text)
    if not 0.5 <= value <= 0.9999:
        raise argparse.ArgumentTypeError(f"{text!r} must be a share between 0.5 and 0.9999")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def parser() -> Options:
    """Return the parser of the options."""
    made = Options("bench", DESCRIPTION)
    add = made.add_argument
    # fmt: off
    add("--ckpt", required=True, type=Path, metavar="FILE", help="checkpoint that liquid-train fit wrote")
    add("--batch", type=at_least(1), nargs="+", default=[1, 32], metavar="B",
        help="series at once (default: 1 32)")
    add("--length", type=at_least(1), nargs="+", default=[64], metavar="T",
        help="steps of a series (default: 64)")
    add("--blocks", type=at_least(5), default=30, metavar="N",
        help="blocks of calls, which take turns; more narrow the interval (default: %(default)s, in a minute at most)")
    add("--warmup", type=at_least(1), default=20, metavar="N", help="calls before that (default: %(default)s)")
    add("--seed", type=at_least(0), default=0, metavar="N", help="of the inputs (default: %(default)s)")
    add("--threads", type=at_least(1), default=1, metavar="N",
        help="of torch; each number has a baseline of its own (default: %(default)s)")
    add("--allowed", type=ratio, default=1.1, metavar="RATIO",
        help="slower by this is no regression yet (default: %(default)s)")
    add("--confidence", type=share, default=0.99, metavar="SHARE",
        help="that no interval misses the truth (default: %(default)s)")
    add("--baseline", type=Path, metavar="FILE",
        help="baseline to use (default: one for this machine and model, in $XDG_STATE_HOME/liquid-train/bench)")
    add("--update-baseline", action="store_true", help="make what is measured now the baseline; exit code 0")
    add("--json", action="store_true", help="print one JSON object in place of the table")
    add("--plot", type=Path, metavar="FILE", help="draw the history (.png, .svg, .pdf; needs matplotlib)")
    # fmt: on
    add_place(made)
    return made


def bench(arguments: Sequence[str]) -> int:
    """Measure, compare, tell.

    Raises:
        InputError: an option is wrong, or there is nothing to compare with.
    """
    options = parser().parse_args(arguments)
    import torch

    from liquid_telemetry.command import CommandRun, Place
    from liquid_train.bench.plot import check_plot
    from liquid_train.tasks.load import load_task

    if options.plot:
        check_plot(options.plot)
    trained = load_task(options.ckpt, "bench: --ckpt")
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    told = CommandRun("bench", trained.name, Place(options.dir, options.host, options.port))
    with exit_on_sigterm():
        told.start(_zero)
        try:
            outcome = _measure(trained, options, told)
        except BaseException as error:
            told.close("failed" if isinstance(error, Exception) else "interrupted", error)
            raise
        finally:
            torch.set_num_threads(threads)
        told.close("completed")
    sys.stdout.write(_json(outcome, options) if options.json else _text(outcome, options))
    sys.stdout.flush()
    if options.plot:
        from liquid_train.bench.baseline import read_history
        from liquid_train.bench.plot import plot_history

        title = f"{outcome.now.model_key} on {outcome.now.machine['cpu']}"
        plot_history(list(read_history(outcome.history)), title, options.plot)
    return REGRESSED if outcome.slower and not options.update_baseline else 0


def _zero(store: Store) -> None:
    store.histogram("benchmark_duration_seconds")


def _measure(trained: Trained, options: Namespace, told: CommandRun) -> Outcome:
    from liquid_train.bench.benchmark import Plan, benchmark
    from liquid_train.bench.measure import Case

    cases = [Case(batch, length) for length in options.length for batch in options.batch]
    plan = Plan(
        cases=list(dict.fromkeys(cases)),
        blocks=options.blocks,
        warmup=options.warmup,
        seed=options.seed,
        allowed=options.allowed,
        confidence=options.confidence,
        baseline=options.baseline,
        update=options.update_baseline,
    )
    outcome = benchmark(trained, plan)
    _tell(told, outcome, options.allowed)
    return outcome


def _tell(told: CommandRun, outcome: Outcome, allowed: float) -> None:
    """Tell the telemetry: every call's duration, whether anything is slower, an event for each case that is."""
    histogram = told.store.histogram("benchmark_duration_seconds")
    for finding in outcome.findings:
        for block in outcome.seconds[finding.case.name]:
            for seconds in block:
                histogram.observe(seconds)
    told.store.set("performance_regression", bool(outcome.slower))
    for finding in outcome.slower:
        assert finding.times is not None, "what is slower has been compared"
        assert finding.baseline is not None, "what is slower has been compared"
        told.emit(
            "performance_regression_detected",
            duration=finding.median,
            threshold=finding.baseline * allowed,
            case=finding.case.name,
            **vars(finding.times),
            allowed=allowed,
            baseline=str(outcome.path.absolute()),
        )


def _json(outcome: Outcome, options: Namespace) -> str:
    now, baseline = outcome.now, outcome.baseline
    said = {
        "verdict": "slower" if outcome.slower else "new" if baseline is None else "no regression",
        "model": now.model_key,
        "model_version": now.model_version,
        "machine": now.machine,
        "allowed": options.allowed,
        "confidence": options.confidence,
        "cases": [finding.to_json() for finding in outcome.findings],
        "baseline": str(outcome.path),
        "baseline_time": baseline.time if baseline else None,
        "baseline_updated": outcome.updated,
        "history": str(outcome.history),
    }
    return json.dumps(said) + "\n"


def _text(outcome: Outcome, options: Namespace) -> str:
    from liquid_train.bench.report import table

    lines = [table(outcome.findings, outcome.now, outcome.baseline)]
    if outcome.baseline is not None:
        names = ", ".join(finding.case.name for finding in outcome.slower)
        found = (
            f"slower than {options.allowed:g} times the baseline: {names}" if names else "no regression found"
        )
        lines.append(f"{found} (baseline of {outcome.baseline.time})")
    if outcome.updated:
        lines.append(f"this is the baseline now: {outcome.path}")
    return "\n".join(lines) + "\n"
