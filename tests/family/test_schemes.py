"""Radii of schemes by hand, and real quantisers, which all land in the family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qverify.arrays import Array
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.choices import Rounding, Scheme
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.members import membership
from qverify.family.radii import Radii
from qverify.family.ranges import calibrate
from qverify.family.steps import FLOAT32_SLACK
from qverify.layers import Dense, Input, Relu
from qverify.network import Network
from tests.support.bounds import box_ends
from tests.support.networks import NETWORKS, conv, known_layers, may_give, mlp


def small() -> tuple[Network, Array]:
    """Weights, biases and calibration data whose ranges one can read off."""
    first = Dense("a", (0,), (2,), weight=np.array([[0.5, -2.0], [0.25, 1.0]]), bias=np.array([1.0, -5.0]))
    relu = Relu("r", (1,), (2,))
    last = Dense("b", (2,), (2,), weight=np.array([[-4.0, 1.0], [2.0, 3.0]]), bias=np.zeros(2))
    return Network((Input("x", (), (2,)), first, relu, last)), np.array([[0.0, -1.0], [2.0, 0.5]])


def test_calibrated_ranges_by_hand() -> None:
    """z = (0.5 x - 2 y + 1, 0.25 x + y - 5): (3, -6) and (1, -4)."""
    network, x = small()
    assert calibrate(network, x)[0][:3] == [(-1.0, 2.0), (-6.0, 3.0), (0.0, 3.0)]


@pytest.mark.parametrize("rounding", ["nearest", "any"])
def test_tensor_and_channel_radii_by_hand(rounding: Rounding) -> None:
    network, x = small()
    share = 0.5 if rounding == "nearest" else 1.0
    tensor = Radii.from_bits(8, "tensor", rounding, network, x)
    channel = Radii.from_bits(8, "channel", rounding, network, x)
    for radii in (tensor, channel):
        assert radii.input == 0.0 and list(radii.points) == ["x", "r"]
        entry, relu = radii.points["x"], radii.points["r"]
        assert entry.radius == pytest.approx(share * 3 / 255 + 3 * 2.0**-21) and entry.entry
        assert relu.radius == pytest.approx(share * 3 / 255 + 3 * 2.0**-21) and not relu.entry
        for point in (entry, relu):  # half a step is left of a whole one where it is rounded to nearest, else nothing
            assert point.dead == pytest.approx(max(0.0, (1 - share) * 3 / 255 - 3 * 2.0**-21), abs=1e-12)
        slack = 3 * 2.0**-21
        assert entry.low == pytest.approx((-1.0 - slack, -1.0 + slack))
        assert entry.high == pytest.approx((2.0 - slack, 2.0 + slack))
        assert relu.low == (0.0, 0.0) and relu.high == pytest.approx((3.0 - slack, 3.0 + slack))
    for radii, name, tops in (
        (tensor, "a", [2, 2]),
        (channel, "a", [2, 1]),
        (tensor, "b", [4, 4]),
        (channel, "b", [4, 3]),
    ):
        top = np.array(tops)
        bias = np.array([1, 5]) if name == "a" else 0
        np.testing.assert_allclose(np.ravel(radii.layers[name]["weight"]), share * top / 127 + top * 2.0**-21)
        wanted = share * top / 127 * 3 / 255 + bias * 2.0**-21
        np.testing.assert_allclose(radii.layers[name]["bias"], np.where(bias == 0, 0.0, wanted))  # 0 stays 0


def test_channel_radii_of_a_convolution_run_along_its_output_channels(rng: np.random.Generator) -> None:
    layer = conv(rng, "c", 0, (2, 3, 3), (3, 2, 2, 2))
    network = Network((Input("x", (), (2, 3, 3)), layer))
    family = Family.of(network, Radii.from_bits(8, "channel", "any", network, rng.random((5, 2, 3, 3))))
    for k in range(3):
        step = np.abs(layer.weight[k]).max() * (1 / 127 + FLOAT32_SLACK)
        np.testing.assert_allclose(family.weight[1][k], np.where(layer.weight[k] == 0, 0.0, step))


def test_wrong_settings_of_a_scheme() -> None:
    network, x = small()
    for bits in (0, 33, 2.5, True, "8"):
        with pytest.raises(RadiiError, match=r"bit-width is .* whole number from 1 to 32 for 'paper'"):
            Radii.from_bits(bits)  # type: ignore[arg-type]
    with pytest.raises(RadiiError, match="from 2 to 32 for 'tensor'"):
        Radii.from_bits(1, "tensor", "any", network, x)
    with pytest.raises(RadiiError, match="Unknown rounding 'floor'"):
        Radii.from_bits(8, rounding="floor")  # type: ignore[arg-type]
    with pytest.raises(RadiiError, match="Unknown scheme 'dynamic'"):
        Radii.from_bits(8, "dynamic")  # type: ignore[arg-type]
    for missing in ((None, x), (network, None)):
        with pytest.raises(RadiiError, match="needs the network and calibration data"):
            Radii.from_bits(8, "tensor", "any", *missing)
    with pytest.raises(RadiiError, match="calibration data are empty"):
        Radii.from_bits(8, "tensor", "any", network, np.zeros((0, 2)))
    with pytest.raises(RadiiError, match="NaN or infinite"):
        Radii.from_bits(8, "tensor", "any", network, [[np.nan, 1.0]])


def round_by(values: Array, how: str, rng: np.random.Generator) -> Array:
    """Nearest, floor, ceiling, or stochastic rounding to whole numbers."""
    if how == "nearest":
        return np.round(values)
    if how == "stochastic":
        return np.floor(values + rng.random(np.shape(values)))
    return np.floor(values) if how == "floor" else np.ceil(values)


def symmetric(values: Array, bits: int, how: str, rng: np.random.Generator, axis: Any = None) -> tuple[Array, float]:
    """Symmetric integers in the narrow range, back in floating point; the step too."""
    top = np.abs(values).max(axis=axis, keepdims=axis is not None)
    step = np.where(top > 0, top, 1.0) / (2 ** (bits - 1) - 1)
    limit = 2 ** (bits - 1) - 1
    return step * np.clip(round_by(values / step, how, rng), -limit, limit), step


def asymmetric(
    values: Array, bits: int, how: str, rng: np.random.Generator, low: float, high: float
) -> tuple[Array, float]:
    """Affine integers over [low, high] widened to 0, with a whole zero point, saturating."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (2**bits - 1) or 1.0
    zero = np.round(-low / step)
    return step * (np.clip(round_by(values / step, how, rng) + zero, 0, 2**bits - 1) - zero), step


def quantise_weights(
    network: Network, steps: list[float], bits: int, how: str, rng: np.random.Generator, kind: str
) -> Network:
    """Weights by a real quantiser, biases as whole multiples of s_x s_w."""
    changes = {}
    for i in network.weighted:
        layer = known_layers(network)[i]
        if kind == "asymmetric":
            weight, step = asymmetric(layer.weight, bits, how, rng, layer.weight.min(), layer.weight.max())
        else:
            axis = tuple(range(1, layer.weight.ndim)) if kind == "channel" else None
            weight, step = symmetric(layer.weight, bits, how, rng, axis)
        unit = np.broadcast_to(np.ravel(step), layer.bias.shape) * steps[layer.inputs[0]]
        bias = unit * round_by(layer.bias / unit, how, rng) if layer.has_bias else layer.bias
        changes[i] = replace(layer, weight=weight, bias=bias)
    return network.with_layers(changes)


def run_quantised(
    quantised: Network, x: Array, ranges: list[tuple[float, float]], bits: int, how: str, rng: np.random.Generator
) -> list[Array]:
    """The values of the quantised network on one quantised input, each activation quantised and clipped."""
    values: list[Array] = []
    for i, layer in enumerate(quantised.layers):
        if isinstance(layer, Input):
            values.append(asymmetric(x, bits, how, rng, *ranges[0])[0])
        elif isinstance(layer, Relu):
            exact = np.maximum(values[layer.inputs[0]], 0)
            values.append(asymmetric(exact, bits, how, rng, *ranges[i])[0])
        else:
            one = Network((Input("i", (), (values[layer.inputs[0]].size,)), replace(layer, inputs=(0,))))
            values.append(one.evaluate(values[layer.inputs[0]][None])[0])
    return values


def in_family(family: Family, quantised: Network) -> Network:
    """The quantised weights on the layers of the family, its rounding points as they are."""
    changes = {i: replace(known_layers(family.network)[i], **_numbers(quantised, i)) for i in quantised.weighted}
    return family.network.with_layers(changes)


def _numbers(network: Network, index: int) -> dict[str, Array]:
    layer = known_layers(network)[index]
    return {"weight": layer.weight, "bias": layer.bias}


@pytest.mark.parametrize("how", ["nearest", "floor", "ceil", "stochastic"])
@pytest.mark.parametrize("kind", ["tensor", "channel", "asymmetric"])
@pytest.mark.parametrize("name", ["dense", "scaled_input", "conv_attributes", "conv_pool"])
def test_real_quantisers_land_in_the_family(name: str, kind: str, how: str, rng: np.random.Generator) -> None:
    """Whole int8 networks: their weights, biases and input are those of a member, every activation is one that its
    rounding point may give for what enters it; and every value lies inside the bounds."""
    network = NETWORKS[name](rng)
    data = rng.normal(size=(8, network.input_size))
    rounding: Rounding = "nearest" if how == "nearest" else "any"
    scheme: Scheme = "channel" if kind == "channel" else "tensor"
    family = Family.of(network, Radii.from_bits(8, scheme, rounding, network, data))
    ranges, _ = calibrate(network, data)
    steps = [(high - low) / 255 for low, high in ranges]
    quantised = quantise_weights(network, steps, 8, how, rng, kind)
    x = np.concatenate([data[:3], 1.5 * rng.normal(size=(4, network.input_size))])  # some leave the calibrated range
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x)))
    for row in range(len(x)):
        values = run_quantised(quantised, x[row], ranges, 8, how, rng)
        assert membership(family, in_family(family, quantised), x[row], values[0]) == []
        assert family.entry is not None and may_give(family.entry, x[row], values[0]).all()
        for i, point in family.points.items():
            assert may_give(point, values[family.network.layers[i].inputs[0]], values[i]).all()
        for lower, upper, value in zip(bounds.lower, bounds.upper, values, strict=True):
            assert (lower[row].numpy() - 1e-9 <= value).all() and (value <= upper[row].numpy() + 1e-9).all()


def near_ties(top: float, levels: int, rng: np.random.Generator) -> Array:
    """float32 numbers next to (k + 1/2) steps near the top of the range, where float32 rounds worst."""
    ties = (rng.integers(max(0, levels - 60), levels, 4000) + 0.5) * (top / levels)
    near = ties.astype(np.float32) * (1 + rng.integers(-6, 7, 4000).astype(np.float32) * np.float32(2**-24))
    return np.minimum(near, np.float32(top)).astype(np.float64)


def float32_nearest(values: Array, top: float, levels: int) -> Array:
    """Round to nearest with every operation in float32, the step included, as runtimes do."""
    step = np.float32(top) / np.float32(levels)
    whole = np.clip(np.round(values.astype(np.float32) / step), -levels, levels)
    return (whole.astype(np.float32) * step).astype(np.float64)


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_float32_quantisers_land_in_the_family(bits: int, rng: np.random.Generator) -> None:
    """Weights and inputs next to ties and an int32 bias, all rounded in float32: inside with the slack, and at every
    bit-width something would be outside without it."""
    n, levels, top = 4000, 2**bits - 1, 7.3
    weight = near_ties(top, 2 ** (bits - 1) - 1, rng)
    weight[0], x = np.float32(top), near_ties(1.7, levels, rng)
    bias = rng.normal(size=n).astype(np.float32).astype(np.float64)
    layers = (Input("x", (), (n,)), Relu("r", (0,), (n,)), Dense("d", (1,), (1,), weight=weight[None], bias=bias[:1]))
    network = Network(layers)
    data = np.stack([np.full(n, np.float32(1.7)), np.zeros(n)])
    family = Family.of(network, Radii.from_bits(bits, "tensor", "nearest", network, data))
    x_hat = float32_nearest(x, data.max(), levels)
    unit = float(np.float32(weight.max() / (2 ** (bits - 1) - 1)) * np.float32(1.7 / levels))
    new_bias = np.float32(unit) * np.round(bias[:1].astype(np.float32) / np.float32(unit))
    rounded = float32_nearest(weight, weight.max(), 2 ** (bits - 1) - 1)
    numbers = {"weight": rounded[None], "bias": new_bias}
    member = family.network.with_layers({2: replace(layers[2], **numbers)})  # type: ignore[arg-type]
    assert membership(family, member, x, x_hat) == []
    assert family.entry is not None and may_give(family.entry, x, x_hat).all()
    exact = replace(family.entry, radius=np.full(n, data.max() / levels / 2))
    half = {"weight": {2: np.full((1, n), weight.max() / (2**bits - 2))}, "entry": exact}
    assert membership(replace(family, **half), member, x, x_hat) != []  # type: ignore[arg-type]


def test_nearest_radii_do_not_cover_floor(rng: np.random.Generator) -> None:
    """So the tests above can fail: half a step is too little for floor."""
    network = mlp(rng, 6, 5, 3)
    data = rng.normal(size=(8, 6))
    family = Family.of(network, Radii.from_bits(8, "tensor", "nearest", network, data))
    steps = [(high - low) / 255 for low, high in calibrate(network, data)[0]]
    quantised = in_family(family, quantise_weights(network, steps, 8, "floor", rng, "tensor"))
    assert "a weight of 'fc0' leaves its radius" in membership(family, quantised, data[0], data[0])
    floored = asymmetric(data[0], 8, "floor", rng, *calibrate(network, data)[0][0])[0]
    assert family.entry is not None and not may_give(family.entry, data[0], floored).all()


@pytest.mark.parametrize(("rounding", "how"), [("nearest", "nearest"), ("any", "floor"), ("any", "stochastic")])
def test_the_paper_convention_covers_its_fixed_point_quantiser(
    rounding: Rounding, how: str, rng: np.random.Generator
) -> None:
    """Fixed point with b bits: inputs in [0, 1] in steps of 2^-b, weights in steps of 2^-(b-1)."""
    network, bits = mlp(rng, 4, 6, 3), 6
    family = Family.of(network, Radii.from_bits(bits, rounding=rounding))
    step = 2.0 ** -(bits - 1)
    changes = {}
    for i in network.weighted:
        layer = known_layers(network)[i]
        rounded = [step * round_by(v / step, how, rng) for v in (layer.weight, layer.bias)]
        changes[i] = replace(layer, weight=rounded[0], bias=rounded[1])
    for x in rng.random((20, 4)):
        x_hat = step / 2 * round_by(x / (step / 2), how, rng)
        exact = np.maximum(network.with_layers(changes).evaluate_all(x_hat[None])[1][0], 0)
        offset = step * round_by(exact / step, how, rng) - exact
        member = network.with_layers({**changes, 2: replace(known_layers(network)[2], offset=offset)})
        assert membership(family, member, x, x_hat) == []


def test_a_pruned_channel_still_rounds_its_bias(rng: np.random.Generator) -> None:
    """Int8 toolchains give a channel of zeros the step 1, so its bias is rounded to steps of s_x."""
    network = mlp(rng, 3, 4, 2)
    weight = known_layers(network)[1].weight.copy()
    weight[2] = 0.0
    network = network.with_layers({1: replace(known_layers(network)[1], weight=weight)})
    x = rng.random((50, 3))
    family = Family.of(network, Radii.from_bits(8, "channel", "nearest", network, x))
    assert family.weight[1][2].max() == 0.0
    assert family.bias[1][2] >= 0.5 * x.max() / 255
    others = np.delete(family.bias[1], 2)
    assert others.max() < 0.1 * family.bias[1][2]


def test_weights_below_the_steps_of_float32_vanish(rng: np.random.Generator) -> None:
    """Toolchains take the step 1 where max|w| / 127 is no normal float32: weights become 0, biases multiples of s_x."""
    network = mlp(rng, 3, 4, 2)
    weight = known_layers(network)[1].weight.copy()
    weight[2] *= 1e-39
    network = network.with_layers({1: replace(known_layers(network)[1], weight=weight)})
    x = rng.random((50, 3))
    family = Family.of(network, Radii.from_bits(8, "channel", "nearest", network, x))
    assert (family.weight[1][2] >= np.abs(weight[2]).max()).all()
    assert family.bias[1][2] >= 0.5 * x.max() / 255


@pytest.mark.parametrize("calibration", [np.zeros(3), np.zeros((2, 5)), "nothing", [[1.0], [1.0, 2.0]]])
def test_calibration_data_of_the_wrong_shape(calibration: Any, rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 4, 2)
    with pytest.raises(RadiiError, match="calibration data"):
        Radii.from_bits(8, "tensor", "any", network, calibration)
