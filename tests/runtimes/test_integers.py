"""From networks to integers: what is recovered, and what is refused in one sentence; exact sums in floating point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from qverify.errors import UnsupportedModel
from qverify.gather import Gather
from qverify.layers import Conv, Input, Rounding, Scale
from qverify.network import Network
from qverify.runtimes.integers import IntegerNetwork, Kind
from qverify.runtimes.sums import Sums
from tests.support.integer_networks import Maker


def maker(shape: tuple[int, ...] = (3,)) -> Maker:
    return Maker(np.random.default_rng(0), shape)


def test_integers_are_those_of_the_file() -> None:
    made = maker((2, 4, 4))
    hidden = made.rounded(made.relu(made.conv(1, 3, pads=(1, 0, 0, 1))), 0.25, -15)
    pooled = made.rounded(made.average(hidden, 2), 0.25, 0)
    again = made.rounded(pooled, 0.5, -3, 4)
    made.dense(made.rounded(made.add(again, again), 1.0, -9), 2)
    network = made.network()
    found = IntegerNetwork.of(network)
    kinds = [stage.kind for stage in found.stages]
    assert kinds == [Kind.WEIGHTS, Kind.POOL, Kind.COPY, Kind.ADD, Kind.WEIGHTS]
    assert [stage.sources for stage in found.stages] == [(0,), (1,), (2,), (3, 3), (4,)]
    conv, pool, copy, total, last = found.stages
    layer: Any = network.layers[2]
    assert conv.layer is not None and (conv.layer.weight * layer.grid == layer.weight).all()
    assert conv.layer.bias * conv.steps[0] == pytest.approx(layer.bias) and conv.steps[0] == pytest.approx(
        0.5 * layer.grid.ravel()
    )
    assert (conv.low, conv.high, conv.step, conv.mixed) == (0, 15, 0.25, True)
    assert (pool.window, float(pool.steps[0]), pool.reach) == (4, 0.25, 60)
    assert (copy.low, copy.high, copy.read) == (-3, 4, 15) and (total.reach, total.read) == (8, 4)
    assert last.step is None and not last.mixed and found.output_step == last.steps[0][0]


def test_the_host_rounds_samples_once() -> None:
    made = maker()
    made.dense(1, 2)
    found = IntegerNetwork.of(made.network())
    assert found.integers(np.array([[0.25, -0.75, 1e9], [0.74, 0.76, -1e9]])).tolist() == [[0, -2, 15], [1, 2, -15]]


def test_a_relu_on_integers_is_a_stage() -> None:
    made = maker()
    made.dense(made.relu(1), 2)
    relu, _ = IntegerNetwork.of(made.network()).stages
    assert (relu.kind, relu.low, relu.high, relu.step, float(relu.steps[0])) == (Kind.COPY, 0, 15, 0.5, 0.5)


def test_maxima_are_a_stage_that_leaves_integers_as_they_are() -> None:
    made = maker((2, 4, 4))
    hidden = made.rounded(made.conv(made.largest(1, (2, 2)), 3), 0.25, -7)
    made.dense(made.largest(hidden, (2, 2), pads=(1, 0, 0, 0)), 2)
    first, conv, second, _ = IntegerNetwork.of(made.network()).stages
    assert (first.kind, first.low, first.high, first.step, first.sources) == (Kind.LARGEST, -15, 15, 0.5, (0,))
    assert (second.kind, second.low, second.high, second.step, second.sources) == (Kind.LARGEST, -7, 15, 0.25, (2,))
    assert conv.steps[0] == pytest.approx(0.5 * np.ravel(made.layers[3].grid))  # type: ignore[attr-defined]


# --- refusals ---


def unrounded(made: Maker) -> None:
    made.layers.pop()
    made.layers.append(Input("input", (), (3,)))
    del made.layers[1:]
    made.layers.append(replace(dense_of(made, 0)))


def dense_of(made: Maker, source: int, **how: Any) -> Any:
    made.layers += [] if len(made.layers) > 1 else [Rounding.on_grid("r", 0, (3,), 0.5, (-15, 15))]
    at = made.dense(1, 3)
    layer: Any = made.layers.pop(at)
    if source == 0:
        made.layers.pop()
    return replace(layer, inputs=(source,), **how)


def scaled(made: Maker) -> None:
    made.layers.append(Scale("scale", (1,), (3,), np.ones(3), np.full(3, 0.5)))
    made.rounded(2, 0.5, -15)


def with_layer(**how: Any) -> Callable[[Maker], None]:
    def change(made: Maker) -> None:
        made.layers.append(dense_of(made, 1, **how))
        made.rounded(len(made.layers) - 1, 0.5, -15)

    return change


def blocks(made: Maker) -> None:
    layer = dense_of(made, 1)
    grid = np.array([[0.25, 0.25, 0.125]])
    made.layers.append(replace(layer, weight=np.ones((3, 3)), grid=np.broadcast_to(grid, (3, 3))))
    made.rounded(2, 0.5, -15)


def unlike_steps(made: Maker) -> None:
    at = made.dense(1, 3)
    made.layers.append(Rounding.on_grid("r2", at, (3,), [0.5, 0.5, 0.25], (-15, 15)))


def unlike_ends(made: Maker) -> None:
    at = made.dense(1, 3)
    made.layers.append(Rounding.on_grid("r2", at, (3,), 0.5, (-15, [15, 15, 14])))


def last_per_channel(made: Maker) -> None:
    layer: Any = dense_of(made, 1)
    grid = np.array([[0.25], [0.125], [0.25]])
    made.layers.append(replace(layer, weight=np.ones((3, 3)), bias=np.zeros(3), grid=grid))


def twice(made: Maker) -> None:
    made.layers.append(Rounding.on_grid("r2", 0, (3,), 0.25, (-15, 15)))
    made.rounded(made.add(1, 2), 0.5, -15)


def joined(made: Maker) -> None:
    made.rounded(dense_of(made, 1).inputs[0], 0.25, -15)
    made.layers.append(Gather("both", (1, 2), (4,), index=np.array([0, 5, 2, 1]), fill=np.zeros(4)))


def constant(made: Maker) -> None:
    made.layers.append(Gather("one", (1,), (4,), index=np.array([0, -1, 2, 1]), fill=np.zeros(4)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (joined, "layer 'both' joins tensors or constants"),
        (constant, "layer 'one' joins tensors or constants"),
        (unrounded, "reads the input, which is not quantised"),
        (scaled, "'scale' is a Scale"),
        (with_layer(grid=None), "weights that are not quantised"),
        (with_layer(bias=np.array([0.01, 0.0, 0.0])), "biases that are no whole multiples"),
        (with_layer(bias=np.array([2.0**35, 0.0, 0.0])), "may overflow 32 bits"),
        (blocks, "several steps in one sum"),
        (unlike_steps, "no grid with one step"),
        (unlike_ends, "at several ends"),
        (last_per_channel, "neither requantised nor of one step"),
        (twice, "quantised twice"),
    ],
)
def test_what_is_not_computed_in_integers_is_refused(change: Callable[[Maker], None], words: str) -> None:
    made = maker()
    change(made)
    with pytest.raises(UnsupportedModel) as caught:
        IntegerNetwork.of(made.network())
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_windows_that_are_no_average_are_refused() -> None:
    made = maker((2, 4, 4))
    at = made.average(1, 2)
    layer: Any = made.layers[at]
    made.layers[at] = replace(layer, weight=layer.weight * 0.5)
    made.rounded(at, 0.5, -15)
    with pytest.raises(UnsupportedModel, match="no plain average"):
        IntegerNetwork.of(made.network())


# --- sums ---

SHAPES: dict[str, dict[str, Any]] = {
    "pointwise": {"weight": (5, 4, 1, 1)},
    "strided pointwise": {"weight": (5, 4, 1, 1), "strides": (2, 1)},
    "padded": {"weight": (5, 4, 3, 2), "pads": (1, 0, 2, 1), "strides": (2, 1)},
    "dilated": {"weight": (3, 4, 2, 2), "dilations": (2, 3)},
    "depthwise": {"weight": (4, 1, 3, 2), "pads": (1, 1, 0, 0), "strides": (1, 2), "groups": 4},
    "dilated depthwise": {"weight": (4, 1, 2, 2), "dilations": (2, 1), "groups": 4},
    "large depthwise": {"weight": (4, 1, 6, 6), "groups": 4},
    "grouped": {"weight": (6, 2, 2, 2), "groups": 2},
}


@pytest.mark.parametrize("reach", [127, 32767])
@pytest.mark.parametrize("name", SHAPES)
def test_sums_are_exact_and_intervals_are_tight(name: str, reach: int) -> None:
    """In int64, by the definition of a convolution in `layers.py`; the ends of intervals by the signs of weights."""
    rng = np.random.default_rng(0)
    how = dict(SHAPES[name])
    weight = rng.integers(-127, 128, how.pop("weight")).astype(float)
    bias = rng.integers(-(10**6), 10**6, len(weight)).astype(float)
    shape = (4, 6, 7)
    pads, strides, dilations = (
        how.get(k, d) for k, d in (("pads", (0,) * 4), ("strides", (1, 1)), ("dilations", (1, 1)))
    )
    spans = [dilations[i] * (weight.shape[2 + i] - 1) + 1 for i in (0, 1)]
    size = [(shape[1 + i] + pads[i] + pads[i + 2] - spans[i]) // strides[i] + 1 for i in (0, 1)]
    layer = Conv("c", (0,), (len(weight), *size), weight, bias, shape, **how)
    sums = Sums(layer, reach)
    assert sums.dtype is (torch.float32 if reach == 127 else torch.float64)
    low = rng.integers(-reach, reach + 1, (3, layer.in_shape[0] * 42)).astype(float)
    high = np.minimum(low + rng.integers(0, 3, low.shape), reach)
    spread = np.repeat(bias, layer.positions)
    tensors = torch.tensor(low), torch.tensor(high)
    np.testing.assert_array_equal(sums.exact(tensors[0]).numpy(), layer.apply(weight, low) + spread)
    positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
    below, above = sums.interval(*tensors)
    np.testing.assert_array_equal(below.numpy(), layer.apply(positive, low) + layer.apply(negative, high) + spread)
    np.testing.assert_array_equal(above.numpy(), layer.apply(positive, high) + layer.apply(negative, low) + spread)


def test_networks_of_floats_are_refused() -> None:
    made = maker()
    made.layers = [made.layers[0]]
    made.layers.append(replace(dense_of(maker(), 1), inputs=(0,), grid=None))
    with pytest.raises(UnsupportedModel, match="not quantised"):
        IntegerNetwork.of(Network(tuple(made.layers), "floats"))
