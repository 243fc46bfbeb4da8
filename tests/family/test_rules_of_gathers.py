"""Rules of runtimes where tensors are moved, cut and joined between the layers of a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qverify.family.float_errors import float_errors
from qverify.family.rules import file_kernel, input_step, point_error
from qverify.gather import Gather
from qverify.layers import Dense, Input, Layer, Rounding
from qverify.network import Network

TURNED = np.array([2, 0, 3, 1])


def moved(rng: np.random.Generator, steps: tuple[float, float] = (0.5, 0.5), fill: float = 0.0) -> Network:
    """Two rounding points of the input, joined, cut or turned, and a dense layer of integers behind; rounded."""
    weight: Any = rng.integers(-9, 9, (3, 4)) * 0.25
    layers: list[Layer] = [
        Input("x", (), (4,)),
        Rounding.on_grid("first", 0, (4,), steps[0], (-128, 127)),
        Rounding.on_grid("second", 0, (4,), steps[1], (-128, 127)),
        Gather("both", (1, 2), (8,), index=np.arange(8), fill=np.zeros(8)),
        Gather("some", (3,), (4,), index=np.array([5, 0, 6, -1]), fill=np.array([0.0, 0.0, 0.0, fill])),
        Dense("fc", (4,), (3,), weight=weight, bias=np.zeros(3), grid=np.full((1, 1), 0.25)),
        Rounding.on_grid("y", 5, (3,), 0.1, (-128, 127), kernel=True),
    ]
    return Network(tuple(layers), "file")


def turned(network: Network) -> Network:
    """The same with what its dense layer reads turned before, and its columns with it."""
    entry, rounded, dense, last = network.layers
    assert isinstance(dense, Dense)
    gather = Gather("turned", (1,), (4,), index=TURNED, fill=np.zeros(4))
    other = Dense("fc", (2,), (3,), weight=dense.weight[:, TURNED], bias=dense.bias, grid=dense.grid)
    return Network((entry, rounded, gather, other, Rounding(**{**vars(last), "inputs": (3,)})), "file")


@pytest.mark.parametrize("rule", ["nearest", "float32", "single", "double", "any"])
def test_a_layer_behind_moved_numbers_rounds_as_before(rule: str, rng: np.random.Generator) -> None:
    weight: Any = rng.integers(-9, 9, (3, 4)) * 0.25
    plain = Network(
        (
            Input("x", (), (4,)),
            Rounding.on_grid("q", 0, (4,), 0.5, (-128, 127)),
            Dense("fc", (1,), (3,), weight=weight, bias=np.ones(3) * 0.125, grid=np.full((1, 1), 0.25)),
            Rounding.on_grid("y", 2, (3,), 0.3, (-128, 127), kernel=True),
        ),
        "file",
    )
    other = turned(plain)
    np.testing.assert_array_equal(point_error(other, 4, rule), point_error(plain, 3, rule))
    x = rng.normal(size=(5, 4)) * 30
    np.testing.assert_allclose(other.evaluate(x), plain.evaluate(x), atol=1e-12)
    assert input_step(other, 3) == 0.5


def test_the_step_of_what_is_joined_is_one_or_none(rng: np.random.Generator) -> None:
    assert input_step(moved(rng), 5) == 0.5
    assert input_step(moved(rng, (0.5, 0.25)), 5) is None


def test_sums_of_joined_numbers_are_checked(rng: np.random.Generator) -> None:
    network = moved(rng)
    assert file_kernel(network).refused == ()
    layer: Any = network.layers[5]
    wide = network.with_layers({5: Dense("fc", (4,), (3,), layer.weight, np.full(3, 3e8), grid=layer.grid)})
    assert len(file_kernel(wide).refused) == 1


def test_what_makes_the_numbers_of_a_gather_may_round_twice(rng: np.random.Generator) -> None:
    """Behind a layer that a Gather stands between, the second rounding of `double` is half a step at most."""
    network = moved(rng)
    tail = Gather("tail", (5,), (3,), index=np.array([2, 1, 0]), fill=np.zeros(3))
    last: Any = network.layers[6]
    behind = Network((*network.layers[:6], tail, Rounding(**{**vars(last), "inputs": (6,)})), "file")
    single, double = (point_error(behind, 7, rule) for rule in ("single", "double"))
    assert (double >= single + 0.5).all()
    again = Network((*network.layers[:5], Rounding.on_grid("z", 4, (4,), 0.1, (-128, 127))), "file")
    assert (point_error(again, 5, "double") < 0.5 + point_error(again, 5, "single")).all()


def test_floats_are_moved_without_an_error(rng: np.random.Generator) -> None:
    network = moved(rng, fill=0.7)
    errors = float_errors(network)
    assert errors[3].tolist() == [0.0] * 8 and errors[4][:3].tolist() == [0.0] * 3
    assert abs(np.float32(0.7) - 0.7) <= errors[4][3] <= 1e-7
