"""The targets: how a program is written to a file, and how that file is run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liquid_train.errors import InputError
from liquid_train.export.programs import BATCH, LENGTH, Program

Run = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
"""A written program: from its inputs to its outputs, in their order."""

_EXAMPLE = (3, 5)
"""Batch and length to trace with: neither 0 nor 1, which torch.export would take for constants."""


@dataclass(frozen=True)
class Target:
    """A kind of file, and what writes and runs it."""

    name: str
    ending: str
    write: Callable[[Program, Path], None]
    load: Callable[[Path], Run]
    packages: tuple[str, ...]
    """Whose versions the manifest names; each must be installed."""

    def check(self) -> None:
        """Require the packages.

        Raises:
            InputError: one is missing.
        """
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            raise InputError(
                f"export: --target {self.name} needs {', '.join(missing)}; pip install 'liquid-train[export]'"
            )

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the packages."""
        return {name: version(name) for name in self.packages}


def _traced(program: Program) -> Any:
    dims = {name: torch.export.Dim(name) for name in (BATCH, LENGTH)}
    inputs = program.inputs
    shapes: list[Any] = [
        {at: dims[size] for at, size in enumerate(port.shape) if isinstance(size, str)} for port in inputs
    ]
    named = [port for port in inputs if port not in program.state]
    if len(named) < len(inputs):  # torch takes those of *args as one
        shapes[len(named) :] = [tuple(shapes[len(named) :])]
    with torch.no_grad():
        return torch.export.export(
            program, program.examples(*_EXAMPLE), dynamic_shapes=tuple(shapes), strict=False
        )


def _write_torch(program: Program, path: Path) -> None:
    with _quiet():
        torch.export.save(_traced(program), path)


def _load_torch(path: Path) -> Run:
    with _quiet():
        module = torch.export.load(path).module()

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(module(*inputs))

    return run


def _write_onnx(program: Program, path: Path) -> None:
    import onnx

    with _quiet():
        made = torch.onnx.export(
            _traced(program),
            input_names=[port.name for port in program.inputs],
            output_names=[port.name for port in program.outputs],
            verbose=False,
        )
        assert made is not None, "the dynamo exporter returns a program"
        made.save(path)
    onnx.checker.check_model(path, full_check=True)


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: what it optimises away is of no interest
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(output) for output in session.run(None, given))

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks on their own workings off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("torch-export", ".pt2", _write_torch, _load_torch, ("torch",)),
        Target("onnx", ".onnx", _write_onnx, _load_onnx, ("torch", "onnx", "onnxruntime", "onnxscript")),
    )
}
