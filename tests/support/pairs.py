"""Small problems of pairs, a sample and a rival, for tests of what splits them: by interval bounds alone, which leave
splits work to do."""

from __future__ import annotations

import numpy as np
import torch

from qverify.arrays import Array
from qverify.bounds.interval import interval_bounds, interval_margins
from qverify.bounds.pairs import Pairs, Rounds
from qverify.bounds.tensors import BoundModel
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.network import Network
from tests.support.networks import inputs, mlp, smooth

KINDS = ["all", "inputs", "points", "tanh"]
_RADII = {"inputs": Radii(0.2, 0.0, 0.0, 0.0), "all": Radii(0.05, 0.002, 0.002, 0.002), "tanh": Radii(0.1, 1e-3, 1e-3)}


def problem(kind: str, seed: int) -> tuple[np.random.Generator, Network, Array, Array, Radii]:
    """A generator, a network, two batches of samples, their labels, and radii of one of the `KINDS`."""
    rng = np.random.default_rng(seed)
    network = smooth(rng, "tanh") if kind == "tanh" else mlp(rng, 4, 10, 10, 3)
    x = np.concatenate([inputs(network, rng) for _ in range(2)])
    radii = _RADII.get(kind) or Radii.from_bits(7, "channel", "nearest", network, x)
    return rng, network, x, network.evaluate(x).argmax(1), radii


def lowest(family: Family, x: Array, labels: Array) -> tuple[BoundModel, Pairs | None]:
    """The pair of the lowest margin of each open sample, if there are any."""
    model = BoundModel.of(family)
    low, high = family.box(x)
    bounds, wanted = interval_bounds(model, model.tensor(low), model.tensor(high)), torch.as_tensor(labels)
    rounds = Rounds(model, bounds, wanted, interval_margins(model, bounds, wanted))
    rounds.begin(torch.nonzero((rounds.lower <= 0).any(1)).squeeze(1))
    return model, rounds._waiting
