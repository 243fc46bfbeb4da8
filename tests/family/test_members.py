"""Members, made at a place in the family and decided in exact arithmetic."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qverify.arrays import Array
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.errors import DataError, InternalError
from qverify.family.family import Family
from qverify.family.members import membership, realise
from qverify.family.points import Point
from qverify.family.radii import Radii
from qverify.layers import Conv, Dense, Input
from qverify.network import Network, margins
from tests.support.bounds import box_ends
from tests.support.networks import (
    EVERY,
    NETWORKS,
    inputs,
    known_layers,
    mlp,
    random_points,
    random_radii,
    sample_members,
)

FLOATS = st.floats(-1e3, 1e3)


@given(FLOATS, st.floats(0, 100), st.integers(-3, 3))
def test_membership_decides_like_exact_arithmetic(centre: float, radius: float, steps: int) -> None:
    """Oracle: Fractions. Values a few units in the last place around both ends of the interval."""
    network = Network((Input("x", (), (1,)), Dense("d", (0,), (1,), weight=[[centre]], bias=[centre])))  # type: ignore[arg-type]
    family = Family.of(network, Radii(input=radius, weight=radius, bias=radius))
    for end in (centre - radius, centre + radius):
        value = end
        for _ in range(abs(steps)):
            value = float(np.nextafter(value, np.inf if steps > 0 else -np.inf))
        member = network.with_layers({1: replace(known_layers(network)[1], weight=[[value]], bias=[value])})
        inside = abs(Fraction(value) - Fraction(centre)) <= Fraction(radius)
        problems = membership(family, member, np.array([centre]), np.array([value]))
        assert len(problems) == (0 if inside else 3), problems


def test_membership_at_one_unit_in_the_last_place(rng: np.random.Generator) -> None:
    """On the end is inside, the next number is not. Radii are powers of two, so the ends are exact."""
    network, x = mlp(rng, 2, 2, 2), np.array([0.5, 0.25])
    plain = network.with_layers({1: replace(known_layers(network)[1], weight=np.eye(2), bias=np.array([0.5, 0.25]))})
    family = Family.of(plain, Radii(input=0.125, weight=0.25, bias=0.125, activation=0.5))

    def check(wording: str, x_hat: Array = x, offset: Array | None = None, **change: Any) -> None:
        layers = {1: replace(plain.layers[1], **change)}
        if offset is not None:
            layers[2] = replace(known_layers(plain)[2], offset=offset)
        problems = membership(family, plain.with_layers(layers), x, x_hat)
        assert len(problems) == (wording != "") and all(wording in p for p in problems)

    beyond = np.nextafter
    check("", x_hat=np.array([0.625, 0.125]))
    check("the input leaves its radius", x_hat=np.array([beyond(0.625, 1), 0.25]))
    check("", weight=[[1.25, -0.25], [0.0, 1.25]])
    check("a weight of 'fc0' leaves its radius", weight=[[1.0, beyond(-0.25, -1)], [0.0, 1.0]])
    check("", bias=np.array([0.625, 0.125]))
    check("a bias of 'fc0' leaves its radius", bias=np.array([0.625, beyond(0.125, 0)]))
    check("", offset=np.array([0.5, -0.5]))
    check("an activation of 'relu0' is off by more than its radius", offset=np.array([0.0, beyond(0.5, 1)]))


def test_membership_names_what_is_wrong_with_a_network(rng: np.random.Generator) -> None:
    network = NETWORKS["input_twice"](rng)
    family, x = Family.of(network, Radii(input=0.1), (0.0, 1.0)), np.full(4, 0.05)
    assert membership(family, network, x, x) == []
    assert membership(family, network, x, x - 0.1) == ["the input leaves the range it is clipped to"]
    assert membership(family, mlp(rng, 4, 3), x, x) == ["the layers differ in number or kind"]
    swapped = network.with_layers({6: replace(network.layers[6], inputs=(0, 5))})
    assert membership(family, swapped, x, x) == ["layer 'add1' is wired differently"]
    for bad in (np.nan, np.inf):
        assert membership(family, network, x, np.array([0.05, bad, 0.05, 0.05]))[0] == "the input leaves its radius"


def test_membership_notices_constants_and_geometry(rng: np.random.Generator) -> None:
    network = NETWORKS["scaled_input"](rng)
    family, x = Family.of(network, Radii(weight=0.1)), np.zeros(5)
    scale, fixed = known_layers(network)[1], known_layers(network)[2]
    other = network.with_layers({1: replace(scale, shift=np.nextafter(scale.shift, 9))})
    assert membership(family, other, x, x) == ["the constants of 'normalise' differ"]
    other = network.with_layers({2: replace(fixed, weight=np.nextafter(fixed.weight, 9))})
    assert membership(family, other, x, x) == ["a weight of 'fixed' leaves its radius"]
    images = NETWORKS["conv_attributes"](rng)
    layer = known_layers(images)[1]
    padded = images.with_layers({1: replace(layer, pads=(2, 0, 1, 1))})
    assert membership(Family.of(images, Radii()), padded, np.zeros(40), np.zeros(40)) == [
        "layer 'conv' has another geometry"
    ]


class RandomChoice:
    """Wants anything: inside, exactly at the ends, or far outside (`reach` > 1)."""

    def __init__(self, rng: np.random.Generator, reach: float, corner: bool) -> None:
        self.rng, self.reach, self.corner = rng, reach, corner

    def _draw(self, shape: tuple[int, ...]) -> Array:
        signs = self.rng.choice([-1.0, 1.0], size=shape)
        return self.reach * (signs if self.corner else signs * self.rng.random(shape))

    def weights(self, index: int, layer: Conv | Dense, x: Array, radius: tuple[Array, Array]) -> tuple[Array, Array]:
        weight, bias = layer.weight, layer.bias
        return weight + self._draw(weight.shape) * radius[0], bias + self._draw(bias.shape) * radius[1]

    def offset(self, index: int, value: Array, radius: Array) -> Array:
        return self._draw(value.shape) * radius


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)], ids=["free", "clipped"])
@pytest.mark.parametrize("name", NETWORKS)
def test_whatever_is_wanted_realise_returns_a_member(
    name: str, clip: tuple[float, float] | None, rng: np.random.Generator
) -> None:
    """Wishes inside, at the ends and far outside: always a member, and its margin is what its own layers give."""
    network = NETWORKS[name](rng)
    family = Family.of(network, random_radii(network, rng), clip)
    for trial in range(12):
        x = rng.random(network.input_size)
        choice = RandomChoice(rng, [1.0, 1.0, 100.0][trial % 3], trial % 2 == 0)
        wanted = x + rng.choice([-1.0, 1.0], size=x.shape) * family.input * choice.reach
        label = trial % network.output_size
        witness = realise(family, x, wanted, label, choice)
        assert membership(family, witness.network, x, witness.input) == []
        outputs = witness.network.evaluate(witness.input[None])
        assert witness.margin == margins(outputs, np.array([label]))[0]
        assert witness.margin == outputs[0, label] - outputs[0, witness.rival] and witness.rival != label


@pytest.mark.parametrize("grid", [False, True], ids=["any", "grid"])
@pytest.mark.parametrize("clip", [None, (0.0, 1.0)], ids=["free", "clipped"])
@pytest.mark.parametrize("name", EVERY)
def test_members_with_points_everywhere_lie_within_the_bounds(
    name: str, clip: tuple[float, float] | None, grid: bool, rng: np.random.Generator
) -> None:
    """What is wanted inside, at the ends or far outside: a member by `membership`, and by the bounds of every layer."""
    network = NETWORKS[name](rng)
    radii = replace(random_radii(network, rng), points=random_points(network, rng, grid))
    family = Family.of(network, radii, clip)
    model = BoundModel.of(family)
    for trial in range(12):
        x = rng.random(network.input_size)
        choice = RandomChoice(rng, [1.0, 1.0, 100.0][trial % 3], trial % 2 == 0)
        wanted = x + rng.choice([-1.0, 1.0], size=x.shape) * family.input_radius * choice.reach
        witness = realise(family, x, wanted, trial % network.output_size, choice)
        assert membership(family, witness.network, x, witness.input) == []
        bounds = interval_bounds(model, *box_ends(model, family.box(x[None])))
        for value, low, high in zip(
            witness.network.evaluate_all(witness.input[None]), bounds.lower, bounds.upper, strict=True
        ):
            assert (low.numpy() - 1e-12 <= value).all() and (value <= high.numpy() + 1e-12).all()


@pytest.mark.parametrize("step", [0.0, 0.25])
def test_members_of_points_at_one_unit_in_the_last_place(step: float) -> None:
    """The largest error is inside, the next number is not; a grid takes half a step of it; the grid itself is fixed."""
    network = mlp(np.random.default_rng(1), 2, 2, 2)
    point = Point(radius=0.25, low=(0.0, 0.0), high=(1.0, 1.0), step=step)
    entry = Point(radius=0.125, low=(-1.0, -1.0), high=(0.5, 0.5), dead=0.0625)
    family, x = Family.of(network, Radii(points={"relu0": point, "x": entry})), np.array([0.25, 0.05])
    layer, most = known_layers(family.network)[2], 0.25 - step / 2

    def problems(x_hat: Array | None = None, **change: Any) -> list[str]:
        given = np.array([0.25, 0.0]) if x_hat is None else x_hat
        return membership(family, family.network.with_layers({2: replace(layer, **change)}), x, given)

    assert problems() == problems(offset=np.array([most * (1 - 1e-15), -most * (1 - 1e-15)])) == []
    wrong = ["an activation of 'relu0' is off by more than its radius"]
    assert problems(offset=np.array([0.0, np.nextafter(most, 1)])) == wrong
    for name in ("low", "high", "step", "dead"):
        other = {name: getattr(layer, name) + (-0.125 if name == "low" else 0.125)}
        assert problems(**other) == ["the rounding point 'relu0' has another grid"]
    assert problems(np.array([0.375, 0.0])) == []
    for beyond in (np.array([0.376, 0.0]), np.array([0.25, 0.01]), np.array([0.25, -0.01])):
        assert problems(beyond) == ["the input leaves its radius"]
    assert membership(family, network, x, np.array([0.25, 0.0])) == ["the layers differ in number or kind"]


def test_realise_goes_to_the_very_ends(rng: np.random.Generator) -> None:
    """Extreme wishes come out within two units in the last place of the end: rounding inwards costs no more."""
    network = mlp(rng, 3, 4, 2)
    family, x = Family.of(network, Radii(input=0.1, weight=0.2, bias=0.3, activation=0.4)), rng.random(3)
    witness = realise(family, x, x + 9, 0, RandomChoice(rng, 50.0, True))
    np.testing.assert_allclose(witness.input, x + 0.1, rtol=1e-15)
    for i, radius in ((1, 0.2), (3, 0.2)):
        shift = np.abs(known_layers(witness.network)[i].weight - known_layers(network)[i].weight)
        np.testing.assert_allclose(shift, radius, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(np.abs(known_layers(witness.network)[2].offset), 0.4)


def test_realise_refuses_numbers_that_are_not_finite(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 2)
    with pytest.raises(InternalError, match="NaN or infinity"):
        realise(Family.of(network, Radii()), np.zeros(3), np.full(3, np.nan), 0, RandomChoice(rng, 1.0, True))


def test_sampled_members_pass_membership_too(rng: np.random.Generator) -> None:
    """The sampling oracle of these tests and membership agree on what the input may be."""
    network = mlp(rng, 4, 3)
    point = Point(radius=0.125, low=(-1.0, -1.0), high=(0.5, 0.5))
    family = Family.of(network, Radii(input=0.0625, points={"x": point}), (-2.0, 2.0))
    for x in np.clip(np.concatenate([inputs(network, rng), np.eye(4)]), -2, 2):
        low, high = family.inner_box(x[None])
        for value in sample_members(family, x, rng, 20, True)[0]:
            assert membership(family, network, x, np.clip(value, low[0], high[0])) == []
            assert (np.abs(value - np.clip(value, low[0], high[0])) < 1e-12).all()


def test_convolution_layers_are_replaced_with_their_geometry(rng: np.random.Generator) -> None:
    network = NETWORKS["conv_attributes"](rng)
    family, x = Family.of(network, random_radii(network, rng)), rng.random(40)
    member = realise(family, x, x, 0, RandomChoice(rng, 1.0, False)).network
    layer = member.layers[1]
    assert isinstance(layer, Conv) and layer.groups == 2 and layer.pads == (1, 0, 2, 1)


def test_no_member_is_made_outside_the_clip(rng: np.random.Generator) -> None:
    network = mlp(rng, 2, 3, 2)
    family = Family.of(network, Radii(input=0.1), (0.0, 1.0))
    x = np.array([0.5, 1.2])
    with pytest.raises(DataError, match="clip-input"):
        family.inner_box(x[None])
