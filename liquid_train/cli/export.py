"""`liquid-train export`: a trained model as a program that runs without this package."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liquid_telemetry.signals import DEPLOYMENT_STATUSES
from liquid_train.cli.launch import port
from liquid_train.cli.options import Options
from liquid_train.cli.terminate import exit_on_sigterm
from liquid_train.errors import InputError

if TYPE_CHECKING:
    from liquid_telemetry.command import Place
    from liquid_telemetry.metrics.store import Store
    from liquid_train.export.targets import Target
    from liquid_train.tasks.load import Trained

TARGET_NAMES = ("torch-export", "onnx")
DESCRIPTION = """Write a trained model as files that run without liquid-train, and check their numbers.

  liquid-train export --ckpt runs/RUN/checkpoints/best.ckpt --target torch-export
  liquid-train export --ckpt runs/RUN/checkpoints/best.ckpt --target onnx --out models/vowels

Each artefact is a folder with two programs and a manifest:
  sequence.pt2 or sequence.onnx   whole sequences, any batch and length, with time spans and lengths
  step.pt2 or step.onnx           one step, with the state carried and the time since the step before
  manifest.json                   hashes, shapes, what was compared and how far apart it was, metrics, run, versions

The files are run, torch-export's in PyTorch and onnx's in onnxruntime, and compared with the checkpoint before the
folder appears; when a number differs by more than the tolerance, the command fails and leaves nothing. onnx needs
pip install 'liquid-train[export]'. docs/export.md shows how to use the files.

exit codes: 0 exported; 1 wrong options or a number that differs."""


def parser() -> Options:
    """Return the parser of the options."""
    made = Options("export", DESCRIPTION)
    made.add_argument(
        "--ckpt", required=True, type=Path, metavar="FILE", help="checkpoint that liquid-train fit wrote"
    )
    made.add_argument("--target", required=True, choices=TARGET_NAMES, help="kind of file")
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to make (default: exports/MODEL_VERSION-TARGET)"
    )
    made.add_argument("--replace", action="store_true", help="replace an artefact that is there")
    add_place(made)
    return made


def add_place(options: Options) -> None:
    """Add the options that say where a command tells of itself."""
    options.add_argument(
        "--dir", default="runs", help="folder for the log of this command (default: %(default)s)"
    )
    options.add_argument("--host", default="127.0.0.1", help="address that metrics are served at, unless an exporter "
                         "serves already (default: %(default)s)")  # fmt: skip
    options.add_argument(
        "--port", type=port, default=9464, help="its port; 0 for a free one (default: %(default)s)"
    )


def export(arguments: Sequence[str]) -> int:
    """Export a checkpoint.

    Raises:
        InputError: an option is wrong, a package is missing, or the numbers differ.
    """
    options = parser().parse_args(arguments)
    _check_torch()
    from liquid_telemetry.command import Place
    from liquid_train.export.artefact import check_out
    from liquid_train.export.targets import TARGETS
    from liquid_train.tasks.load import load_task

    target = TARGETS[options.target]
    target.check()
    trained = load_task(options.ckpt, "export: --ckpt")
    out = options.out or Path("exports") / f"{trained.version}-{target.name}"
    check_out(out, options.replace)
    with exit_on_sigterm():
        manifest = _deploy(trained, target, out, Place(options.dir, options.host, options.port))
    compared = manifest["comparison"]
    sys.stdout.write(
        f"{out}\n"
        + "".join(f"  {file['name']:<14} {file['bytes']:>9,} bytes\n" for file in manifest["files"].values())
        + f"  manifest.json\n{compared['numbers']:,} numbers compared with the checkpoint, at most "
        f"{compared['max_difference']:.2g} apart ({100 * compared['max_excess']:.2g} % of the tolerance)\n"
    )
    return 0


def _check_torch() -> None:
    import torch

    if not hasattr(torch.compiler, "is_exporting"):
        raise InputError(
            f"export: torch {torch.__version__} cannot export a loop; pip install --upgrade torch"
        )


def _deploy(trained: Trained, target: Target, out: Path, place: Place) -> dict[str, Any]:
    """Export under telemetry: events in a run directory of the export's own, and a count of how it went."""
    from liquid_telemetry.command import CommandRun
    from liquid_train.export.artefact import export as write

    told = CommandRun("export", trained.name, place)
    about = {
        "model_version": trained.version,
        "target_platform": target.name,
        "deployment_id": told.run.run_id,
    }
    began = time.monotonic()

    def tell(status: str, **fields: Any) -> None:
        told.store.add("model_deployments_total", 1, target.name, status)
        seconds = {} if status == "started" else {"duration_seconds": time.monotonic() - began}
        told.emit(f"model_deployment_{status}", **about, **seconds, **fields)

    told.start(lambda store: _zero(store, target))
    tell("started")
    try:
        manifest = write(trained, target, out, about, _say)
    except BaseException as error:
        tell("failed", error_type=type(error).__name__, error_message=str(error))
        told.close("failed" if isinstance(error, Exception) else "interrupted", error)
        raise _plain(error, out) from error
    tell("completed", path=str(out.absolute()))
    told.close("completed")
    return manifest


def _zero(store: Store, target: Target) -> None:
    for status in DEPLOYMENT_STATUSES:
        store.add("model_deployments_total", 0, target.name, status)


def _plain(error: BaseException, out: Path) -> BaseException:
    """One line for what a user can mend; anything else as it is."""
    from liquid_train.export.compare import MismatchError

    if isinstance(error, MismatchError):
        return InputError(f"export: the numbers differ, so nothing was kept: {error}")
    if isinstance(error, OSError):
        return InputError(f"export: --out {out}: cannot be written: {error.strerror or error}")
    return error


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")
