"""Crops of convolutional networks: the same bounds as by rows over the whole network, and members inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qverify.bounds import crops
from qverify.bounds.interval import interval_bounds
from qverify.bounds.refinement import tightened_bounds
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.bounds.windows import shapes
from qverify.family.family import Family
from qverify.layers import Add, Conv, Dense, Input, Layer, MaxPool, Product, Relu, Scale
from qverify.network import Network
from tests.support.bounds import box_ends, members, pointed, setting
from tests.support.marks import mostly_slow
from tests.support.networks import NETWORKS, activation, conv_of, inputs, random_radii, relu

Rng = np.random.Generator
CUT = [name for name in NETWORKS if max(shapes(NETWORKS[name](np.random.default_rng(0))), default=0) > 1]
"""The shared networks in which something can be cut."""


def kernel(rng: Rng, *shape: int) -> dict[str, Any]:
    return {"weight": rng.normal(size=shape), "bias": 0.3 * rng.normal(size=shape[0])}


def _deep(rng: Rng) -> Network:
    """Strides, dilations, groups, uneven padding, an image that is not square, a sum over different windows."""
    first = conv_of("a", 0, (2, 9, 7), **kernel(rng, 4, 2, 3, 3), pads=(1, 0, 2, 1))
    second = conv_of("b", 2, first.shape, **kernel(rng, 4, 2, 3, 2), groups=2, dilations=(1, 2), pads=(1, 1, 1, 1))
    third = conv_of("c", 4, second.shape, **kernel(rng, 4, 4, 3, 3), pads=(1, 1, 1, 1))
    both = Add("sum", (5, 4), third.shape)
    last = conv_of("d", 7, both.shape, **kernel(rng, 3, 4, 3, 3), strides=(2, 2), pads=(1, 1, 0, 0))
    return Network(
        (
            *(Input("x", (), (2, 9, 7)), first, relu("r", 1, first), second, relu("s", 3, second), third, both),
            *(relu("t", 6, both), last, relu("u", 8, last)),
            Dense("out", (9,), (3,), weight=rng.normal(size=(3, last.size)) / last.size, bias=np.zeros(3)),
        )
    )


def _pooled(rng: Rng, even: bool = True) -> Network:
    """A MaxPool with padding, a normalisation by channel, an activation with two kinks, and a product."""
    first = conv_of("a", 0, (1, 8, 8), **kernel(rng, 3, 1, 3, 3), pads=(1, 1, 1, 1))
    scales = np.repeat(rng.normal(size=3), 64) if even else rng.normal(size=192)
    scaled = Scale("n", (1,), first.shape, scale=scales, shift=np.repeat(rng.normal(size=3), 64))
    pool = MaxPool("m", (3,), (3, 5, 5), in_shape=(3, 8, 8), kernel=(2, 2), strides=(2, 2), pads=(1, 1, 1, 1))
    second = conv_of("b", 4, (3, 5, 5), **kernel(rng, 2, 3, 3, 3), pads=(1, 1, 1, 1))
    gate = activation("g", 5, second, "hard_sigmoid", 0.2, 0.5)
    gated = Product("p", (5, 6), second.shape)
    third = conv_of("c", 7, second.shape, **kernel(rng, 2, 2, 2, 2))
    return Network(
        (
            *(Input("x", (), (1, 8, 8)), first, scaled, relu("r", 2, first), pool, second, gate, gated, third),
            *(relu("s", 8, third), Dense("out", (9,), (3,), weight=rng.normal(size=(3, 32)), bias=np.zeros(3))),
        )
    )


def family_of(network: Network, rng: Rng, size: float) -> tuple[Family, BoundModel, Any, Bounds]:
    family = Family.of(network, random_radii(network, rng, size))
    x = inputs(network, rng)
    model = BoundModel.of(family)
    return family, model, x, interval_bounds(model, *box_ends(model, family.box(x)))


@pytest.fixture
def cutting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Cut into tiles of one size, whatever that costs; kernels exactly as in the whole network, or coarsely."""

    def choose(size: int, coarse: bool) -> None:
        monkeypatch.setattr(crops, "_TILES", (size,))
        monkeypatch.setattr(crops, "_cost", lambda layers, images, group, index: -float(len(group)))
        monkeypatch.setattr(crops, "_coarse", lambda network, layer: coarse)

    return choose


def whole(model: BoundModel, bounds: Bounds, monkeypatch: pytest.MonkeyPatch) -> Bounds:
    with monkeypatch.context() as patch:
        patch.setattr(crops, "crops", lambda model, index: [])
        return tightened_bounds(model, bounds)


def used(model: BoundModel) -> bool:
    return any(model.cropped.values())


@pytest.mark.parametrize(("make", "size"), mostly_slow([(_deep, 2), (_pooled, 1), (_deep, 1), (_pooled, 2)], 2, True))
def test_bounds_are_those_of_the_whole_network(
    make: Any, size: int, rng: Rng, cutting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutting(size, coarse=False)
    _, model, _, bounds = family_of(make(rng), rng, 0.05)
    found, expected = tightened_bounds(model, bounds), whole(model, bounds, monkeypatch)
    assert used(model)
    for index in range(len(model.network.layers)):
        for one, other in ((found.lower, expected.lower), (found.upper, expected.upper)):
            assert torch.allclose(one[index], other[index], rtol=1e-7, atol=1e-7), (
                index
            )  # but for what rounding is allowed


@pytest.mark.parametrize("make", [_deep, _pooled])
def test_coarse_bounds_hold_and_are_close(make: Any, rng: Rng, cutting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cutting(1, coarse=True)
    _, model, _, bounds = family_of(make(rng), rng, 0.05)
    found, expected = tightened_bounds(model, bounds), whole(model, bounds, monkeypatch)
    assert used(model)
    for index in range(len(model.network.layers)):
        assert (found.lower[index] >= bounds.lower[index]).all() and (found.upper[index] <= bounds.upper[index]).all()
    wide, least = (float((b.upper[-2] - b.lower[-2]).mean()) for b in (found, expected))
    assert least <= wide * (1 + 1e-9) and wide < 1.3 * least


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("size", [0.05, 0.4])
@pytest.mark.parametrize("make", [*mostly_slow([_deep, _pooled]), *mostly_slow(CUT, 0)])
def test_members_lie_inside(make: Any, size: float, coarse: bool, cutting: Any) -> None:
    """Oracle: the independent forward pass of members, with rounding points at every layer too."""
    cutting(1, coarse)
    rng = np.random.default_rng(5)
    if isinstance(make, str):
        cases = [setting(make, 7, size=size)[:4], pointed(make, 7, size=size)[:4]]
    else:
        cases = [family_of(make(rng), rng, size)]
    for family, model, x, bounds in cases:
        tight = tightened_bounds(model, bounds)
        for row in range(len(x)):
            for values in members(family, bounds, x, row, rng):
                for lower, upper, value in zip(tight.lower, tight.upper, values, strict=True):
                    room = 1e-10 * max(1.0, float(np.abs(value).max()))
                    assert (value >= lower[row].numpy() - room).all() and (value <= upper[row].numpy() + room).all()


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("make", [_deep, _pooled])
def test_every_number_is_in_one_tile(make: Any, size: int, rng: Rng, cutting: Any) -> None:
    cutting(size, coarse=False)
    _, model, *_ = family_of(make(rng), rng, 0.1)
    cut = 0
    for index in shapes(model.network):
        found = crops.crops(model, index)
        if not found:
            continue
        cut += 1
        numbers = torch.cat([crop.tiles.flatten() for crop in found])
        assert torch.equal(numbers.sort().values, torch.arange(model.network.layers[index].size))
    assert cut > 3


def test_a_crop_computes_what_the_network_computes(rng: Rng, cutting: Any) -> None:
    """Its forward pass on the numbers that it sees: the members of all radii 0."""
    cutting(2, coarse=False)
    network = _deep(rng)
    _, model, *_ = family_of(network, rng, 0.0)
    x = rng.normal(size=(1, network.input_size))
    index = max(i for i, layer in enumerate(network.layers) if isinstance(layer, Conv))
    until = Network(network.layers[: index + 1])
    expected = until.evaluate(x)[0]
    for crop in crops.crops(model, index):
        for tile in range(len(crop.tiles)):
            own = x[:, crop.places[0][tile].numpy()]
            assert crop.model.network.evaluate(own)[0] == pytest.approx(expected[crop.tiles[tile].numpy()], abs=1e-12)


def test_what_differs_by_position_is_not_cut(rng: Rng, cutting: Any) -> None:
    cutting(1, coarse=False)
    _, model, *_ = family_of(_pooled(rng, even=False), rng, 0.1)
    assert crops.crops(model, 1) and not crops.crops(model, 3)


def test_what_sees_padding_alone_is_not_cut(rng: Rng, cutting: Any) -> None:
    cutting(1, coarse=False)
    first = conv_of("a", 0, (1, 4, 4), **kernel(rng, 2, 1, 1, 1), pads=(1, 1, 1, 1))
    layers: tuple[Layer, ...] = (Input("x", (), (1, 4, 4)), first, Relu("r", (1,), first.shape))
    last = Dense("out", (2,), (2,), weight=rng.normal(size=(2, first.size)), bias=np.zeros(2))
    _, model, *_ = family_of(Network((*layers, last)), rng, 0.1)
    assert not crops.crops(model, 1)


def test_small_images_are_worked_on_whole(rng: Rng) -> None:
    """Beginning with a crop costs more than a small network."""
    _, model, _, bounds = family_of(_deep(rng), rng, 0.1)
    tightened_bounds(model, bounds)
    assert model.cropped and not used(model)
