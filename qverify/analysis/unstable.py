"""Numbers of unstable neurons, which the exact step may have to branch on, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qverify.bounds.interval import OutOfTime
from qverify.bounds.refinement import tightened_bounds, unstable
from qverify.budget import Deadline
from qverify.text.brief import Brief
from qverify.verification.setup import Setup

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.arrays import Array
    from qverify.family.radii import Radii
    from qverify.network import Network
    from qverify.verification.verdict import Options

MOST = 200
"""Samples the means are taken over where nobody chose them: enough for two digits."""
_TOGETHER = 8
"""Samples between two looks at the clock where BP refines every layer."""


@dataclass(frozen=True, kw_only=True)
class Unstable:
    """One Relu or rounding point: name and size, and its unstable neurons, the mean over samples, by IBP and after BP
    at every layer (None if not asked for)."""

    name: str
    size: int
    ibp: float
    bp: float | None


@dataclass(frozen=True, repr=False)
class Counted(Brief):
    """Per activation (a Relu, or a rounding point), by the index in `network.layers` of its layer, means over the first
    `samples` samples; none if that is 0."""

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
    """Numbers of unstable neurons on samples x (N, n_in), counted in their order until the deadline.

    `options.method`: `ibp`, or any other for BP too. `on_samples` hears how many are done.
    """
    setup, refine = Setup(network, radii, options), options.method != "ibp"
    deadline = deadline or Deadline()
    relus = {k: i for k in range(len(network.layers)) for i in setup.family.own(k) if i in setup.family.activation}
    totals, done = np.zeros((2, len(relus))), 0
    step = min(setup.chunk, _TOGETHER) if refine else setup.chunk
    for start in range(0, len(x), step):
        try:
            rough = setup.intervals(x[start : start + step], deadline)
        except OutOfTime:
            break
        bounds = [rough, tightened_bounds(setup.model, rough, deadline)] if refine else [rough]
        if refine and deadline.passed():
            break
        for row, found in enumerate(bounds):
            totals[row] += [int(unstable(setup.model, found, i).sum()) for i in relus.values()]
        done += len(rough)
        on_samples(done)
    if not done:
        return Counted(0, {})
    means = totals / done
    layers = {i: network.layers[i] for i in relus}
    return Counted(
        done,
        {
            i: Unstable(
                name=layer.name, size=layer.size, ibp=float(means[0, k]), bp=float(means[1, k]) if refine else None
            )
            for k, (i, layer) in enumerate(layers.items())
        },
    )


def spread_out(count: int) -> list[int]:
    """Positions of at most `MOST` samples of so many, evenly spaced."""
    return [k * count // MOST for k in range(MOST)] if count > MOST else list(range(count))
