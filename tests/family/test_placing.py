"""Rounding points put into a network: where they stand, what they are called, and what the network then computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.placing import placed
from qverify.family.points import NO_ZERO, Point
from qverify.family.radii import Radii
from qverify.family.rules import file_points
from qverify.layers import Add, Dense, Input, Relu, Rounding
from qverify.network import Network
from tests.support.networks import NETWORKS, dense, inputs, known_layers, mlp, random_points

POINT = Point(radius=0.1, low=(-0.5, -0.5), high=(0.75, 0.75))
WIDE = Point(radius=0.1, low=(-1e6, -1e6), high=(1e6, 1e6))


def test_a_point_takes_the_place_of_a_relu(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 4, 2)
    put = placed(network, {"relu0": POINT})
    assert [type(layer) for layer in put.network.layers] == [Input, Dense, Rounding, Dense]
    assert [layer.name for layer in put.network.layers] == [layer.name for layer in network.layers]
    assert put.where == (0, 1, 2, 3) and set(put.points) == {2} and put.entry is None
    layer: Any = put.network.layers[2]
    assert (layer.low == 0).all() and (layer.high == 0.75).all() and (put.points[2].radius == 0.1).all()
    x = rng.normal(size=(20, 3))
    z = x @ known_layers(network)[1].weight.T + known_layers(network)[1].bias
    np.testing.assert_allclose(put.network.evaluate_all(x)[2], np.clip(z, 0.0, 0.75), atol=1e-12)


def test_a_point_of_any_other_layer_stands_behind_it(rng: np.random.Generator) -> None:
    """Also behind the last one; all that read the layer read what is rounded."""
    network = NETWORKS["residual"](rng)
    names = ["relu0", "left", "add", "out", "stem"]
    put = placed(network, dict.fromkeys(names, POINT))
    found = [layer.name for layer in put.network.layers]
    assert found == [
        *("x", "stem", "stem/rounded", "relu0", "left", "left/rounded", "right", "relu1", "add", "add/rounded"),
        *("relu2", "out", "out/rounded"),
    ]
    assert put.where == (0, 1, 3, 4, 6, 7, 8, 10, 11)
    wired = {layer.name: [found[i] for i in layer.inputs] for layer in put.network.layers}
    assert wired["relu0"] == ["stem/rounded"] and wired["left"] == wired["right"] == ["relu0"]
    assert wired["add"] == ["left/rounded", "relu1"] and wired["relu2"] == ["add/rounded"]
    assert wired["out/rounded"] == ["out"] and set(put.points) == {2, 3, 5, 9, 12}
    family = Family.of(network, Radii(points=dict.fromkeys(names, POINT)))
    assert [family.own(k) for k in range(9)] == [(0,), (1, 2), (3,), (4, 5), (6,), (7,), (8, 9), (10,), (11, 12)]


@pytest.mark.parametrize("name", NETWORKS)
def test_wide_points_without_errors_change_nothing(name: str, rng: np.random.Generator) -> None:
    """The wiring is that of the network, wherever points stand."""
    network = NETWORKS[name](rng)
    family = Family.of(network, Radii(points={layer.name: WIDE for layer in network.layers}))
    x = inputs(network, rng)
    np.testing.assert_allclose(family.network.evaluate(family.centre(x)), network.evaluate(x), atol=1e-10)
    for layer, at in zip(network.layers, family.where, strict=True):
        assert family.network.layers[at].name == layer.name
    assert len(family.points) == len(network.layers) - 1 and family.entry is not None


def test_the_point_of_the_input_is_no_layer(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 2)
    put = placed(network, {"x": POINT})
    assert put.network is network and put.points == {} and put.entry is not None
    assert put.entry.radius.shape == (3,)


def test_names_that_are_taken(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 2, 2)
    other = network.with_layers({3: replace(network.layers[3], name="fc0/rounded")})
    assert [layer.name for layer in placed(other, {"fc0": POINT}).network.layers][2] == "fc0/rounded_"


def test_names_that_do_not_exist(rng: np.random.Generator) -> None:
    with pytest.raises(RadiiError, match="no layer 'fc7' to put a rounding point at; its layers are x, fc0, relu0"):
        placed(mlp(rng, 3, 2, 2), {"fc7": POINT})


def file(rng: np.random.Generator) -> Network:
    """A quantised file: weights on a grid, a rounding point behind the input, each layer and the sum."""
    step = 2.0**-4

    def on_grid(name: str, source: int, n_out: int, n_in: int) -> Dense:
        weight = step * rng.integers(-20, 21, (n_out, n_in))
        return replace(
            dense(rng, name, source, n_out, n_in), weight=weight.astype(np.float64), grid=np.full((1, 1), step)
        )

    def point(name: str, source: int, size: int) -> Rounding:
        return Rounding.on_grid(name, source, (size,), 2.0**-3, (-16, 15), kernel=True)

    layers = (Input("x", (), (3,)), point("qx", 0, 3), on_grid("a", 1, 4, 3), point("qa", 2, 4), on_grid("b", 1, 4, 3))
    return Network((*layers, point("qb", 4, 4), Add("sum", (3, 5), (4,)), point("qs", 6, 4)))


def test_points_of_a_file_stay_where_they_are(rng: np.random.Generator) -> None:
    """With their own grid and ends; a stated error is taken, at least half a step, and whether 0 stays 0."""
    network = file(rng)
    put = placed(network, {})
    assert put.network is network or put.network.layers == network.layers
    assert set(put.points) == {1, 3, 5, 7} and all((p.radius == 2.0**-4).all() for p in put.points.values())
    stated = placed(network, {"qa": replace(POINT, radius=0.2, dead=NO_ZERO), "qb": replace(POINT, radius=0.01)})
    assert (stated.points[3].radius == 0.2).all() and (stated.points[3].dead == NO_ZERO).all()
    assert (stated.points[5].radius == 2.0**-4).all() and (stated.points[5].dead == 0).all()
    assert (stated.points[3].step == 2.0**-3).all() and (stated.points[3].low[0] == -2.0).all()


def test_what_cancels_in_a_sum_need_not_be_0_for_runtimes_that_cut_off(rng: np.random.Generator) -> None:
    """Two branches multiplied in fixed point and floored give -1 where they should give 0; integer sums do not."""
    network = file(rng)
    for rule in ("truncate", "any"):
        dead = {name: float(point.dead) for name, point in file_points(network, rule).items()}
        assert dead == {"qx": 0.0, "qa": 0.0, "qb": 0.0, "qs": NO_ZERO}
        family = Family.of(network, Radii.of_file(network, rule))
        assert (family.points[7].dead == NO_ZERO).all()


def test_members_are_refused_as_networks_of_their_own(rng: np.random.Generator) -> None:
    network = file(rng)
    offset = network.with_layers({3: replace(known_layers(network)[3], offset=np.zeros(4))})
    with pytest.raises(RadiiError, match="member of a quantised family already"):
        placed(offset, {})
    stepless = network.with_layers({3: replace(known_layers(network)[3], step=np.zeros(4))})
    with pytest.raises(RadiiError, match="'qa' has no step"):
        placed(stepless, {})


def test_saturation_on_the_way_unsettles_zero(rng: np.random.Generator) -> None:
    """Where a branch is cut off before a Relu, what enters is off, so its 0 is not that of the member."""
    network = NETWORKS["residual"](rng)
    points = random_points(network, rng)
    radii = Radii(points=points, saturations={"relu2": ()})
    family = Family.of(network, radii)
    at = {layer.name: i for i, layer in enumerate(family.network.layers)}
    assert (family.points[at["relu2"]].dead < 0).all()
    layer: Any = family.network.layers[at["relu2"]]
    assert (
        isinstance(layer, Rounding)
        and (layer.dead < 0).all()
        and Relu not in {type(one) for one in known_layers(family.network)}
    )
