"""The structures that the kernels take, as in ``cfc.h``, ``ltc.h`` and ``stream.h``, and addresses for them."""

import ctypes
from collections.abc import Sequence
from typing import Any

from torch import Tensor

MODES = {"default": 0, "no_gate": 1, "pure": 2}
"""Number of each mode."""

ACTIVATIONS = {
    "LeCunTanh": (0, 1.7159, 0.666),
    "Tanh": (0, 1.0, 1.0),
    "ReLU": (1, 1.0, 1.0),
    "SiLU": (2, 1.0, 1.0),
    "GELU": (3, 1.0, 1.0),
}
"""Number, gain and scale of the backbone activations, by the module's class name."""

_Field = tuple[str, Any]


def _fields(kind: Any, names: str) -> list[_Field]:
    return [(name, kind) for name in names.split()]


class SequenceCall(ctypes.Structure):
    """``struct Sequence`` of ``cfc.h``."""

    _fields_ = [("data", ctypes.c_void_p), *_fields(ctypes.c_int64, "step row")]


class CfCCall(ctypes.Structure):
    """``struct CfC`` of ``cfc.h``."""

    _fields_ = [
        *_fields(ctypes.c_int64, "T B C H L K mode activation threads"),
        *_fields(ctypes.c_float, "gain scale span unused"),
        ("x", SequenceCall),
        *_fields(ctypes.c_void_p, "initial spans backbone heads mask time_mask a w_tau"),
        ("out", SequenceCall),
        *_fields(ctypes.c_void_p, "states values u"),
        *_fields(SequenceCall, "grads d_x"),
        *_fields(ctypes.c_void_p, "d_initial d_spans d_closed d_maps"),
    ]


class SynapsesCall(ctypes.Structure):
    """``struct Parameters`` of ``ltc.h``."""

    _fields_ = _fields(ctypes.c_void_p, "w mu sigma erev mask d_w d_mu d_sigma d_erev")


class LTCCall(ctypes.Structure):
    """``struct LTC`` of ``ltc.h``."""

    _fields_ = [
        *_fields(ctypes.c_int64, "T B C H unfolds threads M constrain"),
        *_fields(ctypes.c_float, "span epsilon"),
        *_fields(ctypes.c_void_p, "x spans cm gleak vleak"),
        *_fields(SynapsesCall, "sensory neural"),
        *_fields(ctypes.c_void_p, "states grads d_x d_initial d_spans d_cm d_gleak d_vleak"),
        *_fields(ctypes.c_void_p, "input_w input_b output_w output_b"),
    ]


class StreamCellCall(ctypes.Structure):
    """``struct StreamCell`` of ``stream.h``."""

    _fields_ = [
        *_fields(ctypes.c_int64, "C H L K mode activation"),
        *_fields(ctypes.c_void_p, "backbone heads a rate state"),
    ]


class CfCStreamCall(ctypes.Structure):
    """``struct CfCStream`` of ``stream.h``."""

    _fields_ = [
        *_fields(ctypes.c_int64, "B cells outputs projected"),
        *_fields(ctypes.c_void_p, "cell projection scratch"),
    ]


class StreamSynapsesCall(ctypes.Structure):
    """``struct StreamSynapses`` of ``stream.h``."""

    _fields_ = _fields(ctypes.c_void_p, "counts only sources rows")


class LTCStreamCall(ctypes.Structure):
    """``struct LTCStream`` of ``stream.h``."""

    _fields_ = [
        *_fields(ctypes.c_int64, "B C H M unfolds"),
        *_fields(ctypes.c_void_p, "cm leak"),
        *_fields(StreamSynapsesCall, "sensory neural"),
        *_fields(ctypes.c_void_p, "scale shift state scratch"),
    ]


STRUCTURES = (CfCCall, LTCCall, StreamCellCall, CfCStreamCall, LTCStreamCall)
"""In the order of ``liquid_sizes``."""


def address(tensor: Tensor | None) -> int | None:
    """Return where the first number of a contiguous tensor is."""
    return None if tensor is None else tensor.data_ptr()


def sequence(tensor: Tensor | None) -> SequenceCall:
    """Return where the rows of a tensor ``[T, B, ·]`` are, each of contiguous numbers."""
    return SequenceCall() if tensor is None else SequenceCall(tensor.data_ptr(), *tensor.stride()[:2])


def addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Return an array of addresses."""
    return (ctypes.c_void_p * len(tensors))(*map(address, tensors))
