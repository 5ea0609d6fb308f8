"""Weights of streams as their kernels read them: ``stream.h`` has the layouts.

Shapes: C input channels, H hidden units, M motor neurons, N heads, S sources of synapses (C or H).
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from liquid_train.nn.native.structures import (
    MODES,
    CfCStreamCall,
    LTCStreamCall,
    StreamCellCall,
    StreamSynapsesCall,
)
from liquid_train.nn.streaming.weights import Array, CfCWeights, LTCWeights, Synapses

ACTIVATIONS = {"tanh": 0, "relu": 1, "silu": 2, "gelu": 3}
"""Number of each activation."""

_GROUP, _PLAIN = 16, 4


class Packed:
    """A structure, and everything that it points to.

    Attributes:
        call: The structure.
        states: The states of the layers ``[B, H]``, zeros at first.
    """

    call: ctypes.Structure

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.states: list[Array] = []

    def at(self, array: Array) -> int:
        """Keep an array and return where it is."""
        array = np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else None)
        self.kept.append(array)
        return array.ctypes.data

    def state(self, batch_size: int, units: int) -> int:
        """Make a state and return where it is."""
        self.states.append(np.zeros((batch_size, units), np.float32))
        return self.at(self.states[-1])


class PackedCfC(Packed):
    """The structure of the layers of a CfC cell.

    Args:
        weights: Those of the layers.
        projection: The map after the last layer, or None.
        outputs: Numbers of the last layer that are its output.
        batch_size: Samples.
    """

    def __init__(
        self, weights: Sequence[CfCWeights], projection: Array | None, outputs: int, batch_size: int
    ) -> None:
        super().__init__()
        cells = (StreamCellCall * len(weights))(*(self._cell(part, batch_size) for part in weights))
        self.kept.append(cells)
        widest = max(max(part.inputs + part.units, *_widths(part)) for part in weights)
        self.call = CfCStreamCall(
            B=batch_size,
            cells=len(weights),
            outputs=outputs,
            projected=0 if projection is None else projection.shape[1],
            cell=ctypes.addressof(cells),
            projection=None if projection is None else self.at(packed_map(projection, _PLAIN)),
            scratch=self.at(np.empty(2 * _up(widest, _PLAIN * _GROUP), np.float32)),
        )

    def _cell(self, weights: CfCWeights, batch_size: int) -> StreamCellCall:
        maps = [self.at(packed_map(part, _PLAIN)) for part in weights.backbone]
        backbone = (ctypes.c_void_p * len(maps))(*maps)
        self.kept.append(backbone)
        heads = weights.heads.shape[1] // weights.units
        # The columns of a group are those of its units for one head after the other.
        by_unit = weights.heads.reshape(-1, heads, weights.units)
        return StreamCellCall(
            C=weights.inputs,
            H=weights.units,
            L=len(maps),
            K=weights.backbone[0].shape[1] if maps else 0,
            mode=MODES[weights.mode],
            activation=ACTIVATIONS[weights.activation],
            backbone=ctypes.addressof(backbone),
            heads=self.at(_grouped(by_unit)),
            a=self.at(weights.a),
            rate=self.at(weights.rate),
            state=self.state(batch_size, weights.units),
        )


class PackedLTC(Packed):
    """The structure of an LTC cell.

    Args:
        weights: Those of the cell.
        batch_size: Samples.
    """

    def __init__(self, weights: LTCWeights, batch_size: int) -> None:
        super().__init__()
        H, C = len(weights.cm), len(weights.sensory.g)
        padding = _up(H, _GROUP) - H
        scale, shift = weights.output
        self.call = LTCStreamCall(
            B=batch_size,
            C=C,
            H=H,
            M=len(scale),
            unfolds=weights.unfolds,
            cm=self.at(np.pad(weights.cm, (0, padding))),
            leak=self.at(np.pad(weights.leak.reshape(2, H), ((0, 0), (0, padding)))),
            sensory=self._synapses(weights.sensory),
            neural=self._synapses(weights.neural),
            scale=self.at(scale),
            shift=self.at(shift),
            state=self.state(batch_size, H),
            scratch=self.at(np.empty((4, H + padding), np.float32)),
        )

    def _synapses(self, synapses: Synapses) -> StreamSynapsesCall:
        counts, sources, rows = synapse_rows(synapses)
        only = np.where((sources == sources[:, :1]).all(1), sources[:, 0], -1).astype(np.int32)
        return StreamSynapsesCall(*map(self.at, (counts, only, sources, rows)))


def packed_map(weights: Array, heads: int) -> Array:
    """Pack a map ``[n + 1, m]`` by groups of ``heads`` times 16 columns, ``[groups, n + 1, heads, 16]``."""
    width = heads * _GROUP
    padded = np.pad(weights, ((0, 0), (0, _up(weights.shape[1], width) - weights.shape[1])))
    return _bias_first(padded.reshape(len(weights), -1, heads, _GROUP))


def synapse_rows(synapses: Synapses) -> tuple[Array, Array, Array]:
    """Sort synapses by groups of 16 targets into rows, one synapse of each target in a row.

    Returns:
        The number of rows of each group; the sources ``[rows, 16]``; and slope, offset, conductance and
        current ``[rows, 4, 16]``, zeros where a target has fewer synapses than the others of its group.
    """
    H = synapses.g.shape[1]
    there = synapses.g != 0
    counts, sources, rows = [], [], []
    for start in range(0, H, _GROUP):
        targets = range(start, min(start + _GROUP, H))
        found = [np.flatnonzero(there[:, target]) for target in targets]
        depth = max(map(len, found))
        source = np.zeros((depth, _GROUP), np.int32)
        row = np.zeros((depth, 4, _GROUP), np.float32)
        for lane, (target, given) in enumerate(zip(targets, found, strict=True)):
            source[: len(given), lane] = given
            for k, part in enumerate((synapses.slope, synapses.offset, synapses.g, synapses.current)):
                row[: len(given), k, lane] = part[given, target]
        # Lanes without a target follow the first one, so that rows of one source stay such.
        source[:, len(targets) :] = source[:, :1]
        counts.append(depth)
        sources.append(source)
        rows.append(row)
    return np.array(counts, np.int64), np.concatenate(sources), np.concatenate(rows)


def _grouped(by_unit: Array) -> Array:
    """Pack a map ``[n + 1, N, H]`` by groups of 16 units."""
    rows, heads, units = by_unit.shape
    padded = np.pad(by_unit, ((0, 0), (0, 0), (0, _up(units, _GROUP) - units)))
    return _bias_first(padded.reshape(rows, heads, -1, _GROUP).transpose(0, 2, 1, 3))


def _bias_first(map: Array) -> Array:
    """Bring ``[n + 1, groups, N, 16]`` to ``[groups, n + 1, N, 16]`` with the bias before the weights."""
    return np.ascontiguousarray(np.roll(map, 1, 0).transpose(1, 0, 2, 3))


def _widths(weights: CfCWeights) -> list[int]:
    return [map.shape[1] for map in weights.backbone] or [0]


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
