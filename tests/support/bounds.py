"""What the tests of IBP and BP share: settings, members, and corners by brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch

from qverify.arrays import Array
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.family.batchnorm import Saturation
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.network import Network
from tests.support.networks import NETWORKS, inputs, random_points, random_radii, sample_members, unit_inputs

CLIP = (0.0, 1.0)
MEMBERS = 250
TOLERANCE = 1e-10


BOXES = {
    "positive": ([0.1, 0.0, 0.7], [0.3, 2.0, 0.7]),
    "negative": ([-0.9, -2.0, -0.2], [-0.1, 0.0, -0.2]),
    "symmetric": ([-0.2, -1.0, -0.6], [0.2, 1.0, 0.6]),
    "asymmetric": ([-0.2, -1.5, -0.01], [0.9, 0.3, 3.0]),
    "mixed": ([-0.5, 0.2, -2.0], [0.5, 0.9, -1.0]),
    "some symmetric": ([-0.3, -1.0, -0.5], [0.3, 0.2, 2.0]),
}


def box_ends(model: BoundModel, box: tuple[Array, Array]) -> tuple[torch.Tensor, torch.Tensor]:
    """The two ends of a box, as the model computes with them."""
    lower, upper = box
    return model.tensor(lower), model.tensor(upper)


def setting(name: str, seed: int, clip: tuple[float, float] | None = None, size: float = 0.1) -> tuple[Any, ...]:
    """A family, its model, samples and IBP bounds for one of the shared networks."""
    rng = np.random.default_rng(seed)
    network = NETWORKS[name](rng)
    family = Family.of(network, random_radii(network, rng, size), clip)
    x = inputs(network, rng) if clip is None else unit_inputs(network, rng)
    model = BoundModel.of(family)
    lower, upper = family.box(x)
    return family, model, x, interval_bounds(model, model.tensor(lower), model.tensor(upper)), rng


def pointed(
    name: str, seed: int, clip: tuple[float, float] | None = None, grid: bool = False, size: float = 0.1
) -> tuple[Any, ...]:
    """`setting` with rounding points everywhere."""
    rng = np.random.default_rng(seed)
    network = NETWORKS[name](rng)
    radii = replace(random_radii(network, rng, size), points=random_points(network, rng, grid))
    family = Family.of(network, radii, clip)
    x = inputs(network, rng) if clip is None else unit_inputs(network, rng)
    model = BoundModel.of(family)
    return family, model, x, interval_bounds(model, *box_ends(model, family.box(x))), rng


def with_saturations(network: Network, radii: Radii) -> Radii:
    """The same, where what enters each Relu is cut off on the way, in units of its layer: radii differ by sample."""
    cuts = {}
    for i in network.relus:
        source, full = network.layers[network.layers[i].inputs[0]], np.ones(network.layers[i].size)
        cuts[network.layers[i].name] = (
            Saturation(source=source.name, low=-0.4 * full, high=0.3 * full, gain=1.1 * full),
        )
    return replace(radii, saturations=cuts)


def members(family: Family, bounds: Bounds, x: Array, row: int, rng: np.random.Generator) -> list[list[Array]]:
    """Corners and interior members of one sample, by the independent oracle, with the radii in force there."""
    radii = {i: (r if r.ndim == 1 else r[row]).numpy() for i, r in bounds.activation.items()}
    return [sample_members(family, x[row], rng, MEMBERS, corner, radii) for corner in (True, False)]


def assert_contained(bounds: Bounds, row: int, values: list[Array]) -> None:
    for lower, upper, value in zip(bounds.lower, bounds.upper, values, strict=True):
        assert (value >= lower[row].numpy() - TOLERANCE).all()
        assert (value <= upper[row].numpy() + TOLERANCE).all()


def assert_margins_hold(lower: torch.Tensor, outputs: Array, label: int) -> None:
    """lower (classes,): bounds on y_label - y_j for members' outputs (M, classes)."""
    difference = outputs[:, label, None] - outputs
    difference[:, label] = np.inf
    assert (difference >= lower.numpy() - TOLERANCE).all()


def brute_force(
    weight: Array, radius: Array, bias: float, bias_radius: float, lower: Array, upper: Array
) -> tuple[float, float]:
    """Smallest and largest w.x + b over all corners of weights and bias and all x_j in {l_j, 0 if inside, u_j}."""
    ends = [sorted({lo, hi} | ({0.0} if lo < 0 < hi else set())) for lo, hi in zip(lower, upper, strict=True)]
    points = np.array(list(product(*ends)))
    signs = np.array(list(product([-1.0, 1.0], repeat=len(weight))))
    values = (weight + signs * radius) @ points.T
    return values.min() + bias - bias_radius, values.max() + bias + bias_radius


def with_memory(model: BoundModel, memory: int) -> BoundModel:
    """The same with so many bytes for a piece of work."""
    affine = {i: replace(own, memory=memory) for i, own in model.affine.items()}
    return replace(model, memory=memory, affine=affine)
