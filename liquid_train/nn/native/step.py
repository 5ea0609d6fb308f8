"""One step of a cell for few samples without autograd: the least that can be done between two observations.

The kernels read the weights where they are at each step, so nothing that is kept can be out of date.
"""

import ctypes
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from liquid_train.nn.native.library import Library, native
from liquid_train.nn.shapes import inner_modules
from liquid_train.nn.watch import kept

MOST_SAMPLES = 32
"""From about here on a product with all samples at once is faster."""

_ADDRESS, _COUNT, _WHOLE = Tensor.data_ptr, Tensor.numel, Tensor.is_contiguous

Place = tuple[dict[str, Any], str]
"""A tensor or a setting of a module: where the module has it, and its name there."""


class _Taken(NamedTuple):
    """Tensors as they were, and the structure that has their addresses."""

    key: list[int]
    address: int
    kept: object


class Step:
    """A cell's tensors as the kernels read them, and the function that does.

    Args:
        cell: The cell.
        places: Its tensors.
        watched: What else of the modules within the cell the structure depends on, as places.
        settings: What else of the cell itself, by name.
        fill: Takes the cell and the tensors; returns the structure, and what must live as long, or None where
            the tensors have not the shapes that the kernels read.
        function: Of the library.
        outputs: Number of outputs where they are not the state.
    """

    def __init__(
        self,
        cell: Any,
        places: Iterable[Place],
        watched: Iterable[Place],
        settings: Iterable[str],
        fill: Callable[[Any, list[Tensor]], tuple[ctypes.Structure, object] | None],
        function: Any,
        outputs: int | None = None,
    ) -> None:
        self.places = list(places)
        self.watched = list(watched)
        self.settings = list(settings)
        self.values = self._watched(cell)
        # No reference to the cell, which has one to this: only the collector would free its weights.
        self.cell = weakref.ref(cell)
        self.own = cell._parameters, cell._buffers
        self.fill = fill
        self.function = function
        self.outputs = outputs
        self.inputs, self.size = cell.sensory_size, cell.state_size
        modules = inner_modules(cell)
        self.children = [module._modules for module in (cell, *modules) if module._modules]
        self.found = self._found()
        self.inside = [vars(module) for module in modules]
        self.entries = sum(map(len, self.inside))
        self.hooks = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        # A method that is put around the class's own does what a hook does.
        patched = any("forward" in part for part in self.inside)
        self.served = not patched and all(type(m) is nn.Linear or not m._parameters for m in modules)
        self.taken: _Taken | None = None

    def _found(self) -> list[list[object]]:
        return [[*part.values()] for part in self.children]

    def _watched(self, cell: Any) -> list[object]:
        # What was None may have become a parameter, which is elsewhere.
        own = vars(cell)
        return [
            *(place.get(name, ...) for place, name in self.watched),
            *(own.get(name, ...) for name in self.settings),
        ]

    def is_of(self, cell: nn.Module) -> bool:
        """Return whether it is this cell's, not that of one it is a copy of, and of its modules as they are."""
        parameters, buffers = self.own
        return (
            self.cell() is cell
            and cell._parameters is parameters
            and cell._buffers is buffers
            and self.found == self._found()
            and self.entries == sum(map(len, self.inside))
            and self.values == self._watched(cell)
        )

    def run(self, cell: Any, x: Tensor, h: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor] | None:
        """Return output and new state, or None where this does not serve."""
        B, C = x.shape
        if self.inputs != C or h.shape != (B, self.size) or not self.served or any(self.hooks):
            return None
        try:
            tensors = [place[name] for place, name in self.places]
            # A tensor may be turned or cut where it lies.
            key = [*map(_ADDRESS, tensors), *map(_COUNT, tensors), *map(_WHOLE, tensors)]
        except (KeyError, TypeError):  # there is none, or None
            return None
        # Another thread may take other tensors meanwhile: what this call reads lives as long as it does.
        taken = self.taken
        if taken is None or key != taken.key:
            taken = self.taken = self._take(cell, tensors, key)
        if taken is None:
            return None
        spans, span = (t.data_ptr(), 1.0) if isinstance(t, Tensor) else (None, t)
        out, output = torch.empty_like(h), None
        if self.outputs is not None:
            output = h.new_empty(B, self.outputs)
        written = None if output is None else output.data_ptr()
        arguments = (x.data_ptr(), h.data_ptr(), spans, span, B, out.data_ptr(), written)
        self.function(taken.address, *arguments)
        return (out if output is None else output), out

    def _take(self, cell: Any, tensors: list[Tensor], key: list[int]) -> "_Taken | None":
        if not all(_plain(tensor) and tensor.is_contiguous() for tensor in tensors):
            return None
        filled = self.fill(cell, tensors)
        return None if filled is None else _Taken(key, ctypes.addressof(filled[0]), filled)


def quick_step(
    cell: Any, make: Callable[[Any, Library], Step], x: Tensor, h: Tensor, t: Tensor | float
) -> tuple[Tensor, Tensor] | None:
    """Return output and state after one step without autograd, or None where this does not serve.

    Args:
        cell: The cell.
        make: Makes its ``Step``, on first use.
        x: ``[B, C]``.
        h: ``[B, H]``.
        t: A number, or ``[B, 1]``.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return None
    if not (_plain(x) and _plain(h)) or x.dim() != 2 or not 0 < x.shape[0] <= MOST_SAMPLES:
        return None
    if isinstance(t, Tensor) and not (_plain(t) and t.numel() == h.shape[0]):
        return None
    if (
        torch._C._are_functorch_transforms_active()
        or _has_any_global_hook()
        or torch.is_autocast_enabled("cpu")
        or torch._C._get_tracing_state() is not None
    ):
        return None
    library = native()
    if library is None:
        return None
    step: Step | None = kept(cell).step
    if step is None or not step.is_of(cell):
        # Not in a dictionary of cells: a hook that knows its cell would keep it there for good.
        step = kept(cell).step = make(cell, library)
    if isinstance(t, Tensor):
        t = t.contiguous()
    return step.run(cell, x.contiguous(), h.contiguous(), t)


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype is torch.float32 and tensor.is_cpu and type(tensor) in (Tensor, nn.Parameter)
