"""What the network reads from an ``ncps`` wiring.

Wirings are those of ``ncps``. Source of the neural circuit policies: Lechner et al. 2020, "Neural circuit
policies enabling auditable autonomy", doi 10.1038/s42256-020-00237-3.

Shapes: C input channels, H neurons, N neurons of one layer, M neurons of the layer before it.
"""

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
from ncps.wirings import Wiring


def built_copy(wiring: Wiring, input_size: int | None) -> Wiring:
    """Return a private copy of ``wiring`` that is built for ``input_size`` channels.

    ``Wiring.build`` adds synapses each time it is called, so the caller's object, which other models may
    share, stays as it is, and a built one is not built again. Without ``output_dim`` every neuron is a motor
    neuron.

    Raises:
        ValueError: If the wiring is built for another number of channels, or not built while ``input_size``
            is None.
    """
    if not wiring.is_built() and input_size is None:
        raise ValueError(
            "input_size=None needs a built wiring: give input_size or call wiring.build(n) first"
        )
    if wiring.is_built() and input_size not in (None, wiring.input_dim):
        raise ValueError(
            f"input_size={input_size} but the wiring is built for {wiring.input_dim} channels: "
            f"give input_size={wiring.input_dim} or a wiring that is not built yet"
        )
    wiring = deepcopy(wiring)
    if wiring.output_dim is None:
        wiring.set_output_dim(wiring.units)
    if not wiring.is_built():
        wiring.build(input_size)
    return wiring


def layer_masks(wiring: Wiring, strict: bool) -> list[npt.NDArray[Any]]:
    """Return the synapses of each layer of a built wiring: those from its inputs, then its recurrent ones.

    Args:
        wiring: A built wiring.
        strict: Take the recurrent synapses from the wiring; otherwise every neuron of a layer reads its
            whole layer.

    Returns:
        One array ``[C + N, N]`` for the first layer, ``[M + N, N]`` for each later one; zero where no
        synapse is.
    """
    masks = []
    inputs: npt.NDArray[Any] = wiring.sensory_adjacency_matrix
    for layer in range(wiring.num_layers):
        neurons = wiring.get_neurons_of_layer(layer)
        outgoing = wiring.adjacency_matrix[neurons, :]
        recurrent = outgoing[:, neurons] if strict else np.ones((len(neurons), len(neurons)))
        masks.append(np.concatenate([inputs[:, neurons], recurrent]))
        inputs = outgoing
    return masks
