"""How many neurons the exact step would have to branch on, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qverify.arrays import Array
from qverify.bounds.backward import tightened_bounds, unstable
from qverify.bounds.interval import OutOfTime
from qverify.budget import Deadline
from qverify.family.family import Radii
from qverify.layers import Relu
from qverify.network import Network
from qverify.text.brief import Brief
from qverify.verification.cascade import Cascade
from qverify.verification.verdict import Options

MOST = 200
"""Samples the means are taken over where nobody chose them: enough for two digits."""
_TOGETHER = 8
"""Samples between two looks at the clock where BP refines every layer."""


@dataclass(frozen=True)
class Unstable:
    """One Relu: its name and size, and its unstable neurons, the mean over samples, by IBP and after BP at every layer
    (None if not asked for)."""

    name: str
    size: int
    ibp: float
    bp: float | None


@dataclass(frozen=True, repr=False)
class Counted(Brief):
    """Per Relu, by its index in `network.layers`, means over the first `samples` samples; none if that is 0."""

    samples: int
    relus: dict[int, Unstable]


def unstable_neurons(
    network: Network,
    radii: Radii,
    x: Array,
    options: Options,
    deadline: Deadline | None = None,
    on_samples: Callable[[int], None] = lambda count: None,
) -> Counted:
    """Count for samples x (N, n_in), in their order, until the deadline.

    `options.method`: `ibp`, or any other for BP too. `on_samples` hears how many are done.
    """
    cascade, refine = Cascade(network, radii, options), options.method != "ibp"
    deadline = deadline or Deadline()
    relus = [i for i, layer in enumerate(network.layers) if isinstance(layer, Relu)]
    totals, done = np.zeros((2, len(relus))), 0
    step = min(cascade.chunk, _TOGETHER) if refine else cascade.chunk
    for start in range(0, len(x), step):
        try:
            rough = cascade.intervals(x[start : start + step], deadline)
        except OutOfTime:
            break
        bounds = [rough, tightened_bounds(cascade.model, rough, deadline)] if refine else [rough]
        if refine and deadline.passed():
            break
        for row, found in enumerate(bounds):
            totals[row] += [int(unstable(cascade.model, found, i).sum()) for i in relus]
        done += len(rough)
        on_samples(done)
    if not done:
        return Counted(0, {})
    means = totals / done
    layers = {i: network.layers[i] for i in relus}
    return Counted(
        done,
        {
            i: Unstable(layer.name, layer.size, float(means[0, k]), float(means[1, k]) if refine else None)
            for k, (i, layer) in enumerate(layers.items())
        },
    )


def spread_out(count: int) -> list[int]:
    """Positions of at most `MOST` samples of so many, evenly spaced."""
    return [k * count // MOST for k in range(MOST)] if count > MOST else list(range(count))
