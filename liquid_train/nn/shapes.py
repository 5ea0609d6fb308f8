"""Whether a cell still has the modules, and its tensors the shapes, that it was made with.

They can be replaced by others, as pruning and adapters do. What the plain step reads as it is, or broadcasts,
kernels would read beyond its end.
"""

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from liquid_train.nn.cfc_cell import CfCCell
    from liquid_train.nn.ltc_cell import LTCCell
    from liquid_train.nn.wired_cfc_cell import WiredCfCCell

Shape = tuple[int, ...]


def inner_modules(cell: nn.Module) -> list[nn.Module]:
    """Return the modules within a cell, in a tenth of the time that ``modules()`` takes."""
    found = [*cell._modules.values()]
    for module in found:
        if module is not None and module._modules:
            # One may hold another that is there already, or the cell.
            found += [child for child in module._modules.values() if child not in found]
    return [module for module in found if module is not None]


def cfc_linears(cell: "CfCCell") -> tuple[list[nn.Linear], list[nn.Linear]]:
    """Return the Linear modules of the backbone, and the heads: ff1, or ff1, ff2, time_a and time_b."""
    modules: dict[str, Any] = cell._modules
    stack = modules.get("backbone")
    layers = stack._modules.values() if isinstance(stack, nn.Sequential) else ()
    backbone = [module for module in layers if isinstance(module, nn.Linear)]
    names = ("ff1",) if cell.mode == "pure" else ("ff1", "ff2", "time_a", "time_b")
    return backbone, [modules[name] for name in names]


def cfc_misfit(cell: "CfCCell") -> str | None:
    """Return what does not fit in a CfC cell, all layers of whose backbone are equally wide, or None."""
    backbone, heads = cfc_linears(cell)
    for module, kind in ((cell.backbone, nn.Sequential), *((head, nn.Linear) for head in heads)):
        if module is not None and type(module) is not kind:
            return f"a {type(module).__name__} is where a {kind.__name__} belongs"
    H, features = cell.hidden_size, cell.input_size + cell.hidden_size
    width = len(backbone[0].weight) if backbone else features
    tensors: list[Any] = [part for linear in (*backbone, *heads) for part in (linear.weight, linear.bias)]
    shapes: list[Shape] = []
    for index in range(len(backbone)):
        shapes += (width, features if index == 0 else width), (width,)
    shapes += ((H, width), (H,)) * len(heads)
    tensors.append(cell.sparsity_mask)
    shapes.append((H, width))
    if cell.mode == "pure":
        tensors += cell.A, cell.w_tau
        shapes += (1, H), (1, H)
    return _misfit(tensors, shapes)


def wired_misfit(cell: "WiredCfCCell") -> str | None:
    """Return what does not fit in a wired CfC cell, or None."""
    layers: list[Any] = list(cell.children())
    sizes, reads, modes = cell.layer_sizes, cell.sensory_size, set()
    if len(layers) != len(sizes):
        return f"there are {len(layers)} layers where {len(sizes)} belong"
    for layer, size in zip(layers, sizes, strict=True):
        if (layer.input_size, layer.hidden_size) != (reads, size):
            found = f"{layer.input_size} inputs and {layer.hidden_size} neurons"
            return f"a layer of {found} is where one of {reads} and {size} belongs"
        if layer.backbone is not None:
            return "a layer has a backbone"
        modes.add(layer.mode)
        misfit = cfc_misfit(layer)
        if misfit:
            return misfit
        reads = size
    return None if len(modes) == 1 else "its layers have different modes"


def ltc_misfit(cell: "LTCCell") -> str | None:
    """Return what does not fit in an LTC cell, or None."""
    C, H, M = cell.sensory_size, cell.state_size, cell.motor_size
    shapes: dict[str, Shape] = dict.fromkeys(("gleak", "vleak", "cm"), (H,))
    for name in ("sigma", "mu", "w", "erev", "sparsity_mask"):
        shapes[name], shapes[f"sensory_{name}"] = (H, H), (C, H)
    for name in ("w", "b"):
        shapes[f"input_{name}"], shapes[f"output_{name}"] = (C,), (M,)
    return _misfit([getattr(cell, name) for name in shapes], [*shapes.values()])


def _misfit(tensors: list[Any], shapes: list[Shape]) -> str | None:
    for tensor, shape in zip(tensors, shapes, strict=True):
        if tensor is not None and tensor.shape != shape:
            return f"a tensor of shape {tuple(tensor.shape)} is where {shape} belongs"
    return None
