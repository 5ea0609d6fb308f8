"""What a request is put to: a module, or any function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Subject:
    """Names, size and place of a model.

    Args:
        model: A ``torch.nn.Module``, or whatever answers; None where it is not at hand.
        model_type: Its type in the signals; the name of its class, or that of the function.
        device: Where it runs; that of its first parameter, or cpu.
    """

    def __init__(self, model: Any = None, model_type: str | None = None, device: str | None = None) -> None:
        self.type = model_type or _type_of(model)
        self._model = model
        self._device = device
        self._parameter: Any = None
        self._count: int | None = None

    @property
    def parameters(self) -> int | None:
        """Numbers in its parameters; None where it has none that have a shape."""
        if self._count is None:
            self._count = sum(p.numel() for p in _parameters(self._model) if _has_shape(p)) or None
        return self._count

    @property
    def device(self) -> str:
        """Where it runs now: a module may be moved."""
        if self._device is not None:
            return self._device
        if self._parameter is None:
            self._parameter = next(iter(_parameters(self._model)), None)
        return str(self._parameter.device) if self._parameter is not None else "cpu"


def _type_of(model: Any) -> str:
    if model is None:
        return "unknown"
    return str(getattr(model, "__name__", None) or type(model).__name__)


def _parameters(model: Any) -> Iterable[Any]:
    parameters = getattr(model, "parameters", None)
    return parameters() if callable(parameters) else ()


def _has_shape(parameter: Any) -> bool:
    return type(parameter).__name__ != "UninitializedParameter"


def shape_of(value: Any) -> str | None:
    """The shape of a tensor, an array or nested lists as ``[2, 3]``; of several in a tuple, a dict or an object all.

    Of nested lists the first of each level is looked at. Nothing is read from a device.
    """
    shape = getattr(value, "shape", None)
    if shape is not None:
        return str(list(shape))
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple):
        shapes = [found for found in map(shape_of, value[:_MOST]) if found is not None]
        return ", ".join(shapes) or None
    sizes: list[int] = []
    while isinstance(value, list) and len(sizes) < _DEEPEST:
        sizes.append(len(value))
        value = value[0] if value else None
    return str(sizes) if sizes else None


_MOST, _DEEPEST = 8, 8
