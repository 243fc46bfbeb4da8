"""Settings for tests of optimised bounds: every kind of network, and one that is requantised after every Relu."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qverify.arrays import Array
from qverify.bounds.interval import interval_bounds
from qverify.bounds.optimised import Effort
from qverify.bounds.tensors import BoundModel
from qverify.family.family import Family
from qverify.family.radii import Radii
from tests.support.bounds import box_ends, setting
from tests.support.networks import EVERY, inputs, mlp

EFFORT = Effort(steps=4, length=0.5, decay=0.8)
SIZES = pytest.mark.parametrize("size", [0.03, 0.2], ids=["small", "large"])


def upper_ends(family: Family, values: list[Array], index: int) -> Array:
    """`W x + R |x| + b + r_b` (M, n) of a dense layer, at the inputs of members (M, n_in)."""
    layer: Any = family.network.layers[index]
    x, zero = values[layer.inputs[0]], np.zeros(())
    radius = np.broadcast_to(family.weight.get(index, zero), layer.weight.shape)
    return np.asarray(x @ layer.weight.T + abs(x) @ radius.T + layer.bias + family.bias.get(index, zero))


def rounded_setting(seed: int, size: float) -> tuple[Any, ...]:
    """As `setting`, of a dense network that is requantised after every Relu, with saturation, and its input too."""
    rng = np.random.default_rng(seed)
    network = mlp(rng, 4, 8, 7, 6, 3)
    x = inputs(network, rng)
    radii = Radii.from_bits(4 if size > 0.1 else 6, "channel", "nearest", network, x[:2])
    family = Family.of(network, radii)
    model = BoundModel.of(family)
    return family, model, x, interval_bounds(model, *box_ends(model, family.box(x))), rng


def any_setting(name: str, seed: int, size: float) -> tuple[Any, ...]:
    return rounded_setting(seed, size) if name == "rounded" else setting(name, seed, None, size)


ALL = pytest.mark.parametrize("name", [*EVERY, "rounded"])
