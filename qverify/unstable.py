"""How many neurons the exact step would have to branch on, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qverify.bounds.backward import tightened_bounds, unstable
from qverify.cascade import Cascade
from qverify.network import Array, Network, Relu
from qverify.quantisation import Radii
from qverify.verdict import Options


@dataclass(frozen=True)
class Unstable:
    """One Relu: its name and size, and its unstable neurons, the mean over samples, by IBP and after BP."""

    name: str
    size: int
    ibp: float
    bp: float


def unstable_neurons(network: Network, radii: Radii, x: Array, options: Options) -> dict[int, Unstable]:
    """Per Relu, by its index in `network.layers`; x (N, n_in), N > 0. BP is that at every layer."""
    cascade = Cascade(network, radii, options)
    relus = [i for i, layer in enumerate(network.layers) if isinstance(layer, Relu)]
    totals = np.zeros((2, len(relus)))
    for start in range(0, len(x), cascade.chunk):
        rough = cascade.intervals(x[start : start + cascade.chunk])
        for row, bounds in enumerate((rough, tightened_bounds(cascade.model, rough))):
            totals[row] += [int(unstable(cascade.model, bounds, i).sum()) for i in relus]
    means = totals / len(x)
    return {
        i: Unstable(network.layers[i].name, network.layers[i].size, float(means[0, k]), float(means[1, k]))
        for k, i in enumerate(relus)
    }
