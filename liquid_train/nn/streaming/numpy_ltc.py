"""Steps of LTC cells in NumPy.

Shapes: B batch, C input channels, H neurons, M motor neurons, P synapses, S sources of synapses (C or H).
"""

import numpy as np

from liquid_train.nn.streaming.weights import Array, LTCWeights, Synapses

Span = float | Array
"""A number, or ``[B, 1]``."""


class NumpyLTC:
    """An LTC cell.

    Attributes:
        input: Where the input of a step is put, ``[B, C]``.
        states: The potentials, one array ``[B, H]``.
    """

    def __init__(self, weights: LTCWeights, batch_size: int) -> None:
        H, M = len(weights.cm), weights.output.shape[1]
        dtype, shape = weights.cm.dtype, (batch_size, len(weights.cm))
        self.unfolds = weights.unfolds
        self.sensory = _List(weights.sensory, batch_size, weights.leak)
        self.neural = _List(weights.neural, batch_size, np.zeros_like(weights.leak))
        self.input, self.v = self.sensory.v, self.neural.v
        self.v[...] = 0.0
        self.states = [self.v]
        self.cm = np.tile(weights.cm, (batch_size, 1))
        self.given = np.empty((batch_size, 2 * H), dtype)
        self.total = np.empty((batch_size, 2 * H), dtype)
        self.g, self.current = self.total[:, :H], self.total[:, H:]
        self.g_given = self.given[:, :H]
        self.charge = np.empty(shape, dtype)
        self.motors = self.v[:, :M]
        self.scale, self.shift = (np.tile(part, (batch_size, 1)) for part in weights.output)
        self.output = np.empty((batch_size, M), dtype)

    def run(self, span: Span) -> Array:
        """Run one step and return the output."""
        d = np.asarray(span / self.unfolds, self.total.dtype)
        given, total, charge, cm, v = self.given, self.total, self.charge, self.cm, self.v
        self.sensory.gather(given)
        np.multiply(given, d, given)
        np.add(self.g_given, cm, self.g_given)
        for _ in range(self.unfolds):
            self.neural.gather(total)
            np.multiply(total, d, total)
            np.add(total, given, total)
            np.multiply(cm, v, charge)
            np.add(charge, self.current, charge)
            np.divide(charge, self.g, v)
        np.multiply(self.motors, self.scale, self.output)
        self.output += self.shift
        return self.output


class _List:
    """The synapses that are there: their openings by one product, what they let through by another.

    ``σ(x) = (1 + tanh(x / 2)) / 2``, with the factors in the maps.
    """

    def __init__(self, synapses: Synapses, batch_size: int, constant: Array) -> None:
        sources, targets = np.nonzero(synapses.g)
        S, H = synapses.g.shape
        P, dtype = len(sources), synapses.g.dtype
        rows = np.arange(P)
        self.open = np.zeros((S + 1, P), dtype)
        self.open[sources, rows] = synapses.slope[sources, targets] / 2
        self.open[S] = -synapses.offset[sources, targets] / 2
        self.through = np.zeros((P + 1, 2 * H), dtype)
        self.through[rows, targets] = synapses.g[sources, targets] / 2
        self.through[rows, H + targets] = synapses.current[sources, targets] / 2
        self.through[P] = constant + self.through.sum(0)
        self.z = np.ones((batch_size, S + 1), dtype)
        self.v = self.z[:, :S]
        self.x = np.empty((batch_size, P), dtype)
        self.opened = np.ones((batch_size, P + 1), dtype)
        self.inner = self.opened[:, :P]

    def gather(self, out: Array) -> None:
        """Write conductances and currents at zero potential, ``[B, 2H]``."""
        self.z.dot(self.open, self.x)
        np.tanh(self.x, self.inner)
        self.opened.dot(self.through, out)
