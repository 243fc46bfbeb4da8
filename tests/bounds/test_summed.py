"""Radii of sums at a sample, against float32 sums in random orders."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.radii_file import load_radii, write_radii
from qverify.layers import Conv, Dense, Input, Layer, Relu, Rounding
from qverify.network import Network
from tests.support.bounds import box_ends

Array = np.ndarray
S_X, S_W, S_Y = (float(np.float32(step)) for step in (0.037, 0.0021, 0.052))


def qdq(affine: Layer, shape: tuple[int, ...], relu: bool = False) -> Network:
    """A file that computes in float32: a rounded input, an affine layer, perhaps a Relu, and its rounding point."""
    layers: list[Layer] = [Input("x", (), shape), Rounding.on_grid("x/rounded", 0, shape, S_X, (-128, 127)), affine]
    layers += [Relu("relu", (2,), affine.shape)] if relu else []
    layers.append(Rounding.on_grid("y", len(layers) - 1, affine.shape, S_Y, (-128, 127), kernel=False))
    return Network(tuple(layers), "file")


def fully(rng: np.random.Generator, n_in: int = 300) -> Dense:
    weight: Any = rng.integers(-127, 128, size=(5, n_in)) * S_W
    bias: Any = rng.integers(-300, 300, size=5) * (S_X * S_W)
    return Dense("fc", (1,), (5,), weight=weight, bias=bias, grid=np.full((1, 1), S_W))


def convolution(rng: np.random.Generator) -> Conv:
    weight: Any = rng.integers(-127, 128, size=(2, 3, 3, 3)) * S_W
    grid, places = np.full((1, 1, 1, 1), S_W), {"in_shape": (3, 5, 5), "pads": (1, 1, 1, 1)}
    return Conv("conv", (1,), (2, 5, 5), weight=weight, bias=np.zeros(2), grid=grid, **places)  # type: ignore[arg-type]


def bounds_at(network: Network, x: Array, radii: Radii | None = None) -> tuple[Family, Bounds]:
    family = Family.of(network, radii or Radii.of_file(network))
    model = BoundModel.of(family)
    return family, interval_bounds(model, *box_ends(model, family.box(x[None])))


def summed(terms: list[tuple[float, float]], bias: float, rng: np.random.Generator) -> tuple[float, Fraction]:
    """A sum in float32 in a random order, the bias first or last; and the exact one."""
    total = np.float32(bias if (first := rng.random() < 0.5) else 0.0)
    for k in rng.permutation(len(terms)):
        total = np.float32(total + np.float32(np.float32(terms[k][0]) * np.float32(terms[k][1])))
    total = total if first else np.float32(total + np.float32(bias))
    return float(total), Fraction(bias) + sum(Fraction(a) * Fraction(b) for a, b in terms)


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("relu", [False, True], ids=["alone", "relu"])
def test_sums_in_any_order_are_within_the_radius_of_the_sample(
    share: float, relu: bool, rng: np.random.Generator
) -> None:
    network = qdq(fully(rng), (300,), relu)
    layer: Any = network.layers[2]
    point = Family.of(network, Radii.of_file(network)).points[len(network.layers) - 1]
    assert point.summed is not None
    worst = 0.0
    for _ in range(30):
        counts = rng.integers(-128, 128, size=300) * (rng.random(300) < share)
        family, bounds = bounds_at(network, counts * S_X)
        allowed = (bounds.activation[len(network.layers) - 1][0] - torch.tensor(point.summed.absolute)).numpy()
        assert (
            bounds.activation[len(network.layers) - 1][0].numpy() <= family.activation[len(network.layers) - 1]
        ).all()
        for row in range(5):
            terms = [(float(c) * S_X, float(w)) for c, w in zip(counts, layer.weight[row], strict=True)]
            found, exact = summed(terms, float(layer.bias[row]), rng)
            if relu:
                found, exact = max(found, 0.0), max(exact, Fraction(0))
            off = float(abs(Fraction(found) - exact))
            assert off <= allowed[row]
            worst = max(worst, off / allowed[row])
    assert worst > 0.003  # of the right size


def test_what_a_convolution_sums_counts_as_a_whole_window(rng: np.random.Generator) -> None:
    network = qdq(convolution(rng), (3, 5, 5))
    layer: Any = network.layers[2]
    for _ in range(10):
        counts = rng.integers(-128, 128, size=75) * (rng.random(75) < 0.3)
        family, bounds = bounds_at(network, counts * S_X)
        absolute: Any = family.points[3].summed.absolute  # type: ignore[union-attr]
        allowed = bounds.activation[3][0].numpy() - absolute
        windows = layer.patches((counts * S_X)[None])[0][0]
        for out in range(50):
            kernel = layer.weight[out // 25].ravel()
            terms = [(float(a), float(b)) for a, b in zip(windows[out % 25], kernel, strict=True)]
            found, exact = summed(terms, 0.0, rng)
            assert abs(Fraction(found) - exact) <= Fraction(float(allowed[out]))


def test_few_numbers_leave_few_values_open(rng: np.random.Generator) -> None:
    """A sample of many zeros: a tenth of the radius that all inputs need, in what sums add to half a step."""
    network = qdq(fully(rng), (300,))
    counts = rng.integers(-128, 128, size=300) * (rng.random(300) < 0.03)
    family, bounds = bounds_at(network, counts * S_X)
    half = S_Y / 2
    assert ((bounds.activation[3][0].numpy() - half) < 0.1 * (family.activation[3] - half)).all()


def test_members_of_a_sample_have_its_radii(rng: np.random.Generator) -> None:
    network = qdq(fully(rng), (300,))
    family, _ = bounds_at(network, np.zeros(300))
    assert family.per_sample and not Family.of(network, Radii.of_file(network, "nearest")).per_sample


def test_kernels_of_integers_sum_exactly(rng: np.random.Generator) -> None:
    network = qdq(fully(rng), (300,))
    last: Any = network.layers[-1]
    inside = replace(last, kernel=True)
    fused = Network((*network.layers[:-1], inside), "file")
    assert Family.of(fused, Radii.of_file(fused)).points[3].summed is None


def test_a_radii_file_has_it(tmp_path: Path, rng: np.random.Generator) -> None:
    network, place = qdq(fully(rng), (300,)), str(tmp_path / "r.toml")
    write_radii(Radii.of_file(network), place)
    counts = rng.integers(-128, 128, size=300) * (rng.random(300) < 0.03)
    (_, ours), (_, theirs) = (bounds_at(network, counts * S_X, radii) for radii in (None, load_radii(place)))
    assert torch.equal(ours.activation[3], theirs.activation[3])


def test_a_multiple_of_the_radii_has_a_multiple_of_the_error(rng: np.random.Generator) -> None:
    network, counts = qdq(fully(rng), (300,)), rng.integers(-128, 128, size=300)
    radii = Radii.of_file(network)
    _, once = bounds_at(network, counts * S_X, radii)
    _, twice = bounds_at(network, counts * S_X, radii.scaled(2.0))
    some, more = once.activation[3].numpy(), twice.activation[3].numpy()
    assert (more >= 2 * some * (1 - 1e-9)).all() and (more <= 2.01 * some).all()
