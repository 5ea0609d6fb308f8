"""What was found out about a cell, for as long as nothing in it changes."""

from operator import is_
from typing import Any

from torch import Tensor, nn

from liquid_train.nn.shapes import inner_modules

_CONTENTS = ("_modules", "_parameters", "_buffers")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_ADDRESS, _WHOLE = Tensor.data_ptr, Tensor.is_contiguous


class Kept:
    """What a cell keeps from call to call, as its attribute ``_kept``. Copies and files get an empty one.

    It is there from the start: an attribute that comes later would have compilers compile anew.
    """

    def __init__(self) -> None:
        self.watch: _Watch | None = None
        self.step: Any = None

    def __reduce__(self) -> tuple[type["Kept"], tuple[()]]:
        return Kept, ()


def kept(cell: nn.Module) -> Kept:
    """Return what a cell keeps; one that was pickled before there was such a thing gets it now."""
    found: Kept | None = vars(cell).get("_kept")
    if found is None:
        found = vars(cell)["_kept"] = Kept()
    return found


class _Watch:
    """A cell as it was. It has no reference to the cell, which would then outlive its last use.

    Args:
        cell: The cell.
        found: What was found out about it.
    """

    def __init__(self, cell: nn.Module, found: object) -> None:
        self.found = found
        modules = [cell, *inner_modules(cell)]
        self.inner = modules[1:]
        self.inside = [vars(module) for module in self.inner]
        self.contents = [vars(module)[name] for module in modules for name in _CONTENTS]
        self.hooks = [vars(module)[name] for module in modules for name in _HOOKS]
        self.parts = self._parts(cell)
        self.tensors = [part for part in self.parts if isinstance(part, Tensor)]
        self.places = self._places()

    def holds(self, cell: nn.Module) -> bool:
        """Return whether modules, settings and tensors are the same, and no module has a hook."""
        parts = self._parts(cell)
        return (
            len(parts) == len(self.parts)
            and all(map(is_, parts, self.parts))
            and self.places == self._places()
            and not any(self.hooks)
        )

    def _parts(self, cell: nn.Module) -> list[object]:
        parts: list[object] = [value for name, value in vars(cell).items() if name != "_kept"]
        parts += map(type, self.inner)
        for values in (*self.inside, *self.contents):
            parts += values.values()
        return parts

    def _places(self) -> list[object]:
        # A tensor may be put elsewhere, or turned or cut where it lies, and be the same object still.
        shapes = [tensor.shape for tensor in self.tensors]
        return [*map(_ADDRESS, self.tensors), *map(_WHOLE, self.tensors), *shapes]


def remember(cell: nn.Module, found: object) -> None:
    """Keep what was found out about a cell, all of whose tensors are in memory, in place of what is kept.

    Not if one was computed, as in ``torch.func.functional_call``: it would keep all that it was computed from.
    """
    watch = _Watch(cell, found)
    if all(tensor.is_leaf for tensor in watch.tensors):
        kept(cell).watch = watch


def remembered(cell: nn.Module) -> Any:
    """Return what is kept, or None if there is nothing or something in the cell has changed since."""
    watch = kept(cell).watch
    return watch.found if watch is not None and watch.holds(cell) else None
