"""The loaded kernels, or why there are none. Nothing happens before the first question."""

import ctypes
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liquid_train.nn.native.build import BuildError, built_library
from liquid_train.nn.native.structures import STRUCTURES, CfCCall, LTCCall

log = logging.getLogger(__name__)


class Library:
    """The functions of the shared library.

    Args:
        path: Where it is.

    Raises:
        BuildError: If it cannot be loaded, or was not built from these sources.
    """

    def __init__(self, path: Path) -> None:
        try:
            loaded = ctypes.CDLL(str(path))
            self.cfc_forward = _function(loaded, "cfc_forward", CfCCall)
            self.cfc_backward = _function(loaded, "cfc_backward", CfCCall)
            self.ltc_forward = _function(loaded, "ltc_forward", LTCCall)
            self.ltc_backward = _function(loaded, "ltc_backward", LTCCall)
            self.cfc_step = _step(loaded.cfc_step)
            self.ltc_step = _step(loaded.ltc_step)
            self.cfc_stream = _stream(loaded.cfc_stream)
            self.ltc_stream = _stream(loaded.ltc_stream)
            sizes = (ctypes.c_int64 * len(STRUCTURES))()
            loaded.liquid_sizes(sizes)
        except (OSError, AttributeError) as error:
            raise BuildError(f"{path} cannot be loaded: {error}") from error
        if list(sizes) != list(map(ctypes.sizeof, STRUCTURES)):
            raise BuildError(f"{path} takes structures of {list(sizes)} bytes: it is of other sources")


class _Once:
    """The library of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked = self.forbidden = False
        self.library: Library | None = None
        self.reason = ""

    def find(self) -> None:
        with self.lock:
            if self.asked:
                return
            try:
                if not kernels_allowed():
                    self.reason = "LIQUID_TRAIN_NATIVE=0"
                else:
                    self.library = _checked(Library(built_library()))
            except BuildError as error:
                self.reason = str(error)
                log.warning("CfC and LTC run without their C++ kernels, more slowly: %s", error)
            self.asked = True


def _checked(library: Library) -> Library:
    # It runs the library through what is built on it.
    from liquid_train.nn.fast.native_check import are_right

    try:
        right = are_right(library)
    except Exception as error:  # training must go on
        raise BuildError(f"they could not be checked: {type(error).__name__}: {error}") from error
    if not right:
        raise BuildError("built by this compiler they give other numbers than PyTorch")
    return library


_once = _Once()


def native() -> Library | None:
    """Return the kernels, compiled now if need be, or None when there can be none on this machine.

    Why there are none is logged once. ``LIQUID_TRAIN_NATIVE=0`` in the environment switches them off.
    """
    if not _once.asked:
        _find()
    return _once.library


def _find() -> bool:
    _once.find()
    return True


# A compiler's tracer is to call it, not to look into it: what torch.compiler.assume_constant_result
# does, without the import of the whole compiler.
_find._dynamo_marked_constant = True  # type: ignore[attr-defined]


def kernels_allowed() -> bool:
    """Return whether kernels may run here, if there are any."""
    return os.environ.get("LIQUID_TRAIN_NATIVE") != "0" and not _once.forbidden


@contextmanager
def without_kernels() -> Iterator[None]:
    """Run as on a machine that cannot build them, to compare."""
    global _once
    kept, _once = _once, _Once()
    _once.asked = _once.forbidden = True
    try:
        yield
    finally:
        _once = kept


def _function(loaded: ctypes.CDLL, name: str, structure: type[ctypes.Structure]) -> Any:
    function = getattr(loaded, name)
    function.argtypes = [ctypes.POINTER(structure)]
    function.restype = None
    return function


def _step(function: Any) -> Any:
    pointer = ctypes.c_void_p
    function.argtypes = [*[pointer] * 4, ctypes.c_float, ctypes.c_int64, pointer, pointer]
    function.restype = None
    return function


def _stream(function: Any) -> Any:
    pointer = ctypes.c_void_p
    function.argtypes = [pointer, pointer, pointer, ctypes.c_float, pointer]
    function.restype = None
    return function
