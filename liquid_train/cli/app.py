"""`liquid-train fit|validate|test|predict`: a LightningCLI with telemetry, checkpoints and a summary."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException

import liquid_train.tasks  # noqa: F401  (its classes can then be named without their path)
from liquid_telemetry import Telemetry
from liquid_train.cli.checkpoint import RunCheckpoint
from liquid_train.cli.parser import Parser, check_configs
from liquid_train.cli.predictions import write_predictions
from liquid_train.cli.resume import check_checkpoint, check_overruled, misfit
from liquid_train.cli.stop import GracefulStop
from liquid_train.cli.summary import short, summary
from liquid_train.cli.terminal import tidy
from liquid_train.data import SeriesDataModule
from liquid_train.errors import InputError

DESCRIPTION = """Train, validate, test and use liquid neural networks (CfC and LTC) from a YAML file.

examples:
  liquid-train fit --config configs/japanese_vowels_cfc.yaml
  liquid-train fit --config configs/japanese_vowels_cfc.yaml --trainer.max_epochs 5 --seed_everything 1
  liquid-train fit --config configs/japanese_vowels_cfc.yaml --ckpt_path runs/RUN/checkpoints/last.ckpt
  liquid-train test --config configs/japanese_vowels_cfc.yaml --ckpt_path runs/RUN/checkpoints/best.ckpt
  liquid-train fit --config configs/japanese_vowels_cfc.yaml --print_config
  liquid-train view                                    curves and events of the runs in runs/, also old ones
  liquid-train clean --older-than 30d --dry-run        runs that may go, and why
  liquid-train logs runs                               rates, failures, slow epochs and anomalies of event logs
  liquid-train export --ckpt runs/RUN/checkpoints/best.ckpt --target onnx     files that run without liquid-train
  liquid-train bench --ckpt runs/RUN/checkpoints/best.ckpt     how fast it infers; slower than before?
  liquid-train serve --ckpt runs/RUN/checkpoints/best.ckpt                predictions over HTTP
  liquid-train run -- python train.py                  any command, in a container too; see run --help
  liquid-train doctor                                  is this machine and the stack well, and what to do
  liquid-train fit --help                              every option of a subcommand
  liquid-train fit --model.help LiquidClassifier       every option of a model
  liquid-train fit --data.help ArchiveDataModule       every option of a data module"""

COLLABORATORS: set[str | int] = {"registry", "tracer_provider", "logger", "clock"}
"""Options of `Telemetry` that are objects of a program's, not values of a command line's."""


class SaveConfig(SaveConfigCallback):
    """Keeps the whole configuration as `config.yaml` in the run's directory."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the file, in training only.

        Raises:
            InputError: the run's directory cannot be made.
        """
        checkpoint = find_checkpoint(trainer)
        if stage != "fit" or checkpoint is None:
            return
        path = checkpoint.run_dir(trainer) / "config.yaml"
        make_run_dir(path.parent)
        self.parser.save(self.config, str(path), skip_none=False, overwrite=True)


class LiquidCLI(LightningCLI):
    """LightningCLI with the groups `telemetry` and `checkpoint` and the option `test_after_fit`."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse `args`, without Lightning's warning that the process has arguments too."""
        self.arguments = words(args)
        check_configs(self.arguments)
        self.config = parser.parse_args(args)  # type: ignore[arg-type]
        chosen = self.config[self.config.subcommand]
        check_telemetry(chosen.telemetry)
        path = chosen.get("ckpt_path")
        if path is None and self.config.subcommand != "fit":
            sys.stderr.write("liquid-train: no --ckpt_path is given, so the model is used untrained\n")
        if path:
            check_checkpoint(path)

    def _parse_ckpt_path(self) -> None:
        """Take the model's options from the checkpoint, as Lightning does, but overrule none on the command line."""
        chosen = self.config[self.config.subcommand]
        given = dict(chosen.model.items())
        super()._parse_ckpt_path()
        kept = dict(self.config[self.config.subcommand].model.items())
        if path := chosen.get("ckpt_path"):
            check_overruled(self.arguments, given, kept, path)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the chosen subcommand."""
        try:
            super()._run_subcommand(subcommand)
        except RuntimeError as error:
            mine = misfit(error, self._get(self.config, "ckpt_path"))
            if mine is None:
                raise
            raise mine from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what Lightning does not have."""
        parser.callback_keys.append("telemetry")
        parser.add_class_arguments(
            Telemetry, "telemetry", fail_untyped=False, sub_configs=True, skip=COLLABORATORS
        )
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="After `fit`, test the best checkpoint and say what it reached.",
        )
        parser.add_argument(
            "--torch_threads",
            type=int,
            default=0,
            help="Threads of one torch operation on the CPU, 1 is fastest for small networks; 0 leaves it to torch.",
        )

    def before_instantiate_classes(self) -> None:
        """Set the number of threads before torch works."""
        threads = self._get(self.config, "torch_threads")
        if threads > 0:
            torch.set_num_threads(threads)

    def fit(self, **options: Any) -> None:
        """Train; when that is interrupted, say how to go on."""
        try:
            self.trainer.fit(**options)
        except (KeyboardInterrupt, SystemExit):
            checkpoint = find_checkpoint(self.trainer)
            if checkpoint is not None and checkpoint.last_path.is_file() and self.trainer.is_global_zero:
                sys.stdout.write(f"go on with  --ckpt_path {short(checkpoint.last_path)}\n")
            raise

    def after_fit(self) -> None:
        """Test the best checkpoint if asked to, and say what was reached."""
        results: dict[str, float] = {}
        checkpoint = find_checkpoint(self.trainer)
        best = Path(checkpoint.best_model_path) if checkpoint and checkpoint.best_model_path else None
        if self._get(self.config, "test_after_fit") and best and best.is_file():
            tested = self.trainer.test(
                self.model, datamodule=self.datamodule, ckpt_path=str(best), verbose=False
            )
            results = {name: value for loader in tested for name, value in loader.items()}
        telemetry = self._get(self.config_init, "telemetry")
        if self.trainer.is_global_zero and checkpoint is not None:
            run_dir = checkpoint.run_dir(self.trainer)
            trial = bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]
            sys.stdout.write(summary(results, checkpoint, run_dir, telemetry.run, trial))

    def predict(self, **options: Any) -> None:
        """Predict, and write the predictions to the run's directory."""
        checkpoint = find_checkpoint(self.trainer)
        if checkpoint is not None and self.trainer.is_global_zero:
            observed = self._get(self.config_init, "telemetry").enabled
            chosen = self._get(self.config, "telemetry").dir
            make_run_dir(chosen if observed else checkpoint.run_dir(self.trainer))
        predictions = self.trainer.predict(**options) or []
        if checkpoint is None or not self.trainer.is_global_zero:
            return
        path = checkpoint.run_dir(self.trainer) / "predictions.csv"
        classes = self.datamodule.splits.classes if isinstance(self.datamodule, SeriesDataModule) else None
        if write_predictions(predictions, path, classes):
            sys.stdout.write(f"predictions  {short(path)}\n")


def find_checkpoint(trainer: pl.Trainer) -> RunCheckpoint | None:
    """Return the callback that keeps the checkpoints."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((c for c in callbacks if isinstance(c, RunCheckpoint)), None)


def check_telemetry(options: Namespace) -> None:
    """Require options that `Telemetry` takes: a port, an endpoint and the package to send to it.

    Raises:
        InputError: it does not take them.
    """
    try:
        Telemetry(**vars(options))
    except ValueError as error:
        raise InputError(f"telemetry: {error}") from error


def make_run_dir(path: str | Path) -> None:
    """Make the folder that a run writes to.

    Raises:
        InputError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: the run's directory cannot be made ({error.strerror}); "
            "choose where with --telemetry.dir, or without telemetry with --checkpoint.dirpath"
        ) from error


def words(args: ArgsType) -> list[str]:
    """Return the words of a command line; none where it is an object of a program's."""
    if args is None:
        return sys.argv[1:]
    return [str(word) for word in args] if isinstance(args, list) else []


def run(args: ArgsType) -> None:
    """Run the command line `args`.

    Raises:
        InputError: what the user gave is wrong.
        SIGTERMException: the process was told to end.
    """
    tidy()
    try:
        cli = _run(args)
    except MisconfigurationException as error:
        raise InputError(" ".join(str(error).split())) from error
    if cli.trainer.received_sigterm:
        raise SIGTERMException


def _run(args: ArgsType) -> LiquidCLI:
    return LiquidCLI(
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        trainer_defaults={"logger": False, "callbacks": [GracefulStop()]},
        seed_everything_default=0,
        parser_class=Parser,
        parser_kwargs={"description": DESCRIPTION, "prog": "liquid-train"},
        auto_configure_optimizers=False,
        args=args,
    )
