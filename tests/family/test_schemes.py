"""Radii from schemes and files, membership in exact arithmetic, and real quantisers, which all land in the family."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.errors import DataError, InternalError, RadiiError
from qverify.family.family import Family, Radii, load_radii
from qverify.family.members import membership, realise
from qverify.family.schemes import calibrate
from qverify.family.steps import FLOAT32_SLACK
from qverify.layers import Conv, Dense, Input, Relu
from qverify.network import Network, margins
from tests.support.networks import NETWORKS, conv, dense, inputs, mlp, random_radii, sample_members

# --- numbers of the schemes ---------------------------------------------------------------------------------


def small():
    """Weights, biases and calibration data whose ranges one can read off."""
    first = Dense("a", (0,), (2,), weight=np.array([[0.5, -2.0], [0.25, 1.0]]), bias=np.array([1.0, -5.0]))
    relu = Relu("r", (1,), (2,))
    last = Dense("b", (2,), (2,), weight=np.array([[-4.0, 1.0], [2.0, 3.0]]), bias=np.zeros(2))
    return Network((Input("x", (), (2,)), first, relu, last)), np.array([[0.0, -1.0], [2.0, 0.5]])


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_paper_radii_by_hand(bits):
    any_rounding, nearest = Radii.from_bits(bits), Radii.from_bits(bits, rounding="nearest")
    for radii, share in ((any_rounding, 1.0), (nearest, 0.5)):
        assert radii.input == share * 2.0**-bits
        assert radii.weight == radii.bias == radii.activation == share * 2.0 ** -(bits - 1)
    assert any_rounding.convention != nearest.convention and str(bits) in nearest.convention


def test_calibrated_ranges_by_hand():
    """z = (0.5 x - 2 y + 1, 0.25 x + y - 5): (3, -6) and (1, -4)."""
    network, x = small()
    assert calibrate(network, x)[0][:3] == [(-1.0, 2.0), (-6.0, 3.0), (0.0, 3.0)]


@pytest.mark.parametrize("rounding", ["nearest", "any"])
def test_tensor_and_channel_radii_by_hand(rounding):
    network, x = small()
    share = 0.5 if rounding == "nearest" else 1.0
    tensor = Radii.from_bits(8, "tensor", rounding, network, x)
    channel = Radii.from_bits(8, "channel", rounding, network, x)
    for radii in (tensor, channel):
        assert radii.input == pytest.approx(share * 3 / 255 + 3 * 2.0**-21)
        assert radii.layers["r"]["activation"] == pytest.approx(share * 3 / 255 + 3 * 2.0**-21)
        assert radii.ceilings == {"r": 3.0} and radii.input_range == (-1.0, 2.0)
    for radii, name, top in (
        (tensor, "a", [2, 2]),
        (channel, "a", [2, 1]),
        (tensor, "b", [4, 4]),
        (channel, "b", [4, 3]),
    ):
        top = np.array(top)
        bias = np.array([1, 5]) if name == "a" else 0
        np.testing.assert_allclose(radii.layers[name]["weight"], share * top / 127 + top * 2.0**-21)
        np.testing.assert_allclose(radii.layers[name]["bias"], share * top / 127 * 3 / 255 + bias * 2.0**-21)


def test_channel_radii_of_a_convolution_run_along_its_output_channels(rng):
    layer = conv(rng, "c", 0, (2, 3, 3), (3, 2, 2, 2))
    network = Network((Input("x", (), (2, 3, 3)), layer))
    family = Family.of(network, Radii.from_bits(8, "channel", "any", network, rng.random((5, 2, 3, 3))))
    for k in range(3):
        step = np.abs(layer.weight[k]).max() * (1 / 127 + FLOAT32_SLACK)
        np.testing.assert_allclose(family.weight[1][k], np.full((2, 2, 2), step))


def test_wrong_settings_of_a_scheme():
    network, x = small()
    for bits in (0, 33, 2.5, True, "8"):
        with pytest.raises(RadiiError, match=r"bit-width is .* whole number from 1 to 32 for 'paper'"):
            Radii.from_bits(bits)
    with pytest.raises(RadiiError, match="from 2 to 32 for 'tensor'"):
        Radii.from_bits(1, "tensor", "any", network, x)
    with pytest.raises(RadiiError, match="Unknown rounding 'floor'"):
        Radii.from_bits(8, rounding="floor")
    with pytest.raises(RadiiError, match="Unknown scheme 'dynamic'"):
        Radii.from_bits(8, "dynamic")
    for missing in ((None, x), (network, None)):
        with pytest.raises(RadiiError, match="needs the network and calibration data"):
            Radii.from_bits(8, "tensor", "any", *missing)
    with pytest.raises(RadiiError, match="calibration data are empty"):
        Radii.from_bits(8, "tensor", "any", network, np.zeros((0, 2)))
    with pytest.raises(RadiiError, match="NaN or infinite"):
        Radii.from_bits(8, "tensor", "any", network, [[np.nan, 1.0]])


def test_scaled_multiplies_every_radius():
    radii = Radii(input=1.0, weight=[2.0, 4.0], bias=3.0, activation=4.0, layers={"a": {"weight": [1.0, 2.0]}}).scaled(
        0.5
    )
    assert (radii.input, radii.bias, radii.activation) == (0.5, 1.5, 2.0)
    assert list(radii.weight) == [1.0, 2.0] and list(radii.layers["a"]["weight"]) == [0.5, 1.0]
    assert radii.convention.startswith("0.5 x")


# --- radii resolved against a network -----------------------------------------------------------------------


def test_shapes_of_radii(rng):
    """A number, one per channel, one per element; layers of their own before the rest."""
    layer = conv(rng, "c", 0, (1, 3, 3), (2, 1, 2, 2))
    network = Network((Input("x", (), (1, 3, 3)), layer, Relu("r", (1,), (2, 2, 2)), dense(rng, "d", 2, 3, 8)))
    own = {"c": {"weight": [0.1, 0.2]}, "r": {"activation": [0.3, 0.4]}, "d": {"bias": [1.0, 2.0, 3.0]}}
    family = Family.of(network, Radii(input=np.full((3, 3), 0.5), weight=0.7, bias=0.6, layers=own))
    assert family.input.shape == (9,) and (family.input == 0.5).all()
    assert (family.weight[1][0] == 0.1).all() and (family.weight[1][1] == 0.2).all()
    np.testing.assert_array_equal(family.activation[2], [0.3] * 4 + [0.4] * 4)
    assert (family.weight[3] == 0.7).all() and family.weight[3].shape == (3, 8)
    assert list(family.bias[1]) == [0.6, 0.6] and list(family.bias[3]) == [1.0, 2.0, 3.0]


def test_square_weights_take_one_radius_per_output_channel(rng):
    network = mlp(rng, 2, 2)
    family = Family.of(network, Radii(weight=[0.1, 0.2]))
    np.testing.assert_array_equal(family.weight[1], [[0.1, 0.1], [0.2, 0.2]])


def test_what_is_not_quantised_has_no_radius(rng):
    network = NETWORKS["scaled_input"](rng)
    family = Family.of(network, Radii(weight=0.1, bias=0.2))
    assert set(family.weight) == {network.index("fc"), network.index("out")}
    assert (family.bias[network.index("fc")] == 0).all(), "a layer without a bias gets none"
    assert (family.bias[network.index("out")] == 0.2).all()


WRONG = [
    (Radii(input=-0.5), r"input radius is negative \(-0.5\)"),
    (Radii(weight=np.nan), r"weight \(fc0\) radius holds NaN or infinity"),
    (Radii(bias=np.inf), r"bias \(fc0\) radius holds NaN or infinity"),
    (Radii(activation=[0.1, -0.2]), r"activation \(relu0\) radius is negative"),
    (Radii(weight="wide"), r"weight \(fc0\) radius is not a number"),
    (Radii(weight=[[1.0], [1.0, 2.0]]), "not a number or a rectangular array"),
    (Radii(input=[0.1, 0.2]), r"input radius has shape \(2,\), which fits neither the tensor \(3,\) nor its channels"),
    (Radii(layers={"fc0": {"weight": np.ones((2, 2))}}), r"weight \(fc0\) radius has shape \(2, 2\)"),
    (Radii(layers={"nope": {"weight": 0.1}}), "no layer 'nope' with a radius for its weight; those are: fc0, fc1"),
    (Radii(layers={"relu0": {"bias": 0.1}}), "no layer 'relu0' with a radius for its bias"),
    (Radii(layers={"fc0": {"activation": 0.1}}), "no layer 'fc0' with a radius for its activation; those are: relu0"),
    (Radii(layers={"fc0": {"wieght": 0.1}}), "'fc0' has a radius for 'wieght'; it is weight, bias or activation"),
    (Radii(layers={"fc0": {"input": 0.1}}), "'fc0' has a radius for 'input'"),
    (Radii(ceilings={"fc0": 1.0}), "no activation layer 'fc0' to clip"),
    (Radii(ceilings={"relu0": np.nan}), "ceiling or the input range is NaN"),
    (Radii(input_range=(np.nan, 1.0)), "ceiling or the input range is NaN"),
]


@pytest.mark.parametrize("radii, wording", WRONG, ids=range(len(WRONG)))
def test_wrong_radii_are_refused(radii, wording, rng):
    with pytest.raises(RadiiError, match=wording):
        Family.of(mlp(rng, 3, 2, 2), radii)


def test_a_member_is_not_a_trained_network(rng):
    """Its offsets would be ignored by the bounds, so it is refused rather than bounded wrongly."""
    network = mlp(rng, 3, 2, 2)
    member = network.with_layers({2: Relu("relu0", (1,), (2,), offset=np.array([0.1, 0.0]))})
    with pytest.raises(RadiiError, match="member of a quantised family already"):
        Family.of(member, Radii())


def test_clipping_the_input(rng):
    network = mlp(rng, 3, 2)
    for clip in ((1.0, 0.0), (0.5, 0.5), (np.nan, 1.0)):
        with pytest.raises(RadiiError, match="is empty"):
            Family.of(network, Radii(), clip)
    with pytest.raises(DataError, match="outside --clip-input 0 1"):
        Family.of(network, Radii(), (0.0, 1.0)).box(np.array([[0.5, 1.5, 0.0]]))


def test_an_input_outside_the_calibrated_range_is_clipped_by_the_quantiser(rng):
    """Oracle: clip to the range, then off by the radius."""
    family = Family.of(mlp(rng, 3, 2), Radii(input=0.125, input_range=(-1.0, 2.0)))
    low, high = family.box(np.array([[0.5, 2.5, -3.0]]))
    np.testing.assert_allclose(low, [[0.375, 2.0 - 0.125, -5.125]], atol=1e-12)
    np.testing.assert_allclose(high, [[0.625, 3.125, -1.0 + 0.125]], atol=1e-12)


# --- radii files ----------------------------------------------------------------------------------------------

GOOD = """
input = 0.01
weight = 0.5
activation = [0.1, 0.2]
[layers."fc0"]
weight = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
[layers."fc1"]
bias = [0.25, 0]
"""


def test_a_radii_file(tmp_path, rng):
    path = tmp_path / "radii.toml"
    path.write_text(GOOD)
    radii = load_radii(str(path))
    family = Family.of(mlp(rng, 3, 2, 2), radii)
    np.testing.assert_array_equal(family.weight[1], [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert (family.weight[3] == 0.5).all() and list(family.bias[3]) == [0.25, 0.0] and list(family.bias[1]) == [0, 0]
    assert list(family.activation[2]) == [0.1, 0.2] and (family.input == 0.01).all()
    assert str(path) in radii.convention


BAD_FILES = {
    "weight = = 1": "is not valid TOML",
    "wieght = 0.1": "unknown key 'wieght'; the keys are input, weight, bias, activation",
    "ceilings = 1": "unknown key 'ceilings'",
    'layers = "all"': "unknown key 'layers'",
    "[layers]\nfc0 = 0.1": "unknown key 'layers'",
    '[layers."fc0"]\ninput = 0.1': "unknown key 'input'",
    '[layers."fc9"]\nweight = 0.1': "no layer 'fc9'",
    "input = [0.1, 0.2]": r"input radius has shape \(2,\)",
    "bias = -1": "bias .* radius is negative",
    "bias = nan": "bias .* holds NaN",
    'weight = "0.1 percent"': "weight .* is not a number",
    "weight = 2024-02-29": "weight .* is not a number",
    "weight = {a = 1}": "weight .* is not a number",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_bad_radii_files(text, tmp_path, rng):
    path = tmp_path / "radii.toml"
    path.write_text(text)
    with pytest.raises(RadiiError, match=BAD_FILES[text]):
        Family.of(mlp(rng, 3, 4, 2), load_radii(str(path)))


def test_missing_and_undecodable_files(tmp_path):
    with pytest.raises(RadiiError, match=r"Cannot read the radii file .*none\.toml: No such file"):
        load_radii(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RadiiError, match="is not valid TOML"):
        load_radii(str(tmp_path / "binary.toml"))


# --- membership -------------------------------------------------------------------------------------------------

FLOATS = st.floats(-1e3, 1e3)


@given(FLOATS, st.floats(0, 100), st.integers(-3, 3))
def test_membership_decides_like_exact_arithmetic(centre, radius, steps):
    """Oracle: Fractions. Values a few units in the last place around both ends of the interval."""
    network = Network((Input("x", (), (1,)), Dense("d", (0,), (1,), weight=[[centre]], bias=[centre])))
    family = Family.of(network, Radii(input=radius, weight=radius, bias=radius))
    for end in (centre - radius, centre + radius):
        value = end
        for _ in range(abs(steps)):
            value = float(np.nextafter(value, np.inf if steps > 0 else -np.inf))
        member = network.with_layers({1: replace(network.layers[1], weight=[[value]], bias=[value])})
        inside = abs(Fraction(value) - Fraction(centre)) <= Fraction(radius)
        problems = membership(family, member, np.array([centre]), np.array([value]))
        assert len(problems) == (0 if inside else 3), problems


def test_membership_at_one_unit_in_the_last_place(rng):
    """On the end is inside, the next number is not. Radii are powers of two, so the ends are exact."""
    network, x = mlp(rng, 2, 2, 2), np.array([0.5, 0.25])
    plain = network.with_layers({1: replace(network.layers[1], weight=np.eye(2), bias=np.array([0.5, 0.25]))})
    family = Family.of(plain, Radii(input=0.125, weight=0.25, bias=0.125, activation=0.5))

    def check(wording, x_hat=x, offset=None, **change):
        layers = {1: replace(plain.layers[1], **change)}
        if offset is not None:
            layers[2] = replace(plain.layers[2], offset=offset)
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


def test_membership_names_what_is_wrong_with_a_network(rng):
    network = NETWORKS["input_twice"](rng)
    family, x = Family.of(network, Radii(input=0.1), (0.0, 1.0)), np.full(4, 0.05)
    assert membership(family, network, x, x) == []
    assert membership(family, network, x, x - 0.1) == ["the input leaves the range it is clipped to"]
    assert membership(family, mlp(rng, 4, 3), x, x) == ["the layers differ in number or kind"]
    swapped = network.with_layers({6: replace(network.layers[6], inputs=(0, 5))})
    assert membership(family, swapped, x, x) == ["layer 'add1' is wired differently"]
    for bad in (np.nan, np.inf):
        assert membership(family, network, x, np.array([0.05, bad, 0.05, 0.05]))[0] == "the input leaves its radius"


def test_membership_notices_constants_and_geometry(rng):
    network = NETWORKS["scaled_input"](rng)
    family, x = Family.of(network, Radii(weight=0.1)), np.zeros(5)
    scale, fixed = network.layers[1], network.layers[2]
    other = network.with_layers({1: replace(scale, shift=np.nextafter(scale.shift, 9))})
    assert membership(family, other, x, x) == ["the constants of 'normalise' differ"]
    other = network.with_layers({2: replace(fixed, weight=np.nextafter(fixed.weight, 9))})
    assert membership(family, other, x, x) == ["a weight of 'fixed' leaves its radius"]
    images = NETWORKS["conv_attributes"](rng)
    layer = images.layers[1]
    padded = images.with_layers({1: replace(layer, pads=(2, 0, 1, 1))})
    assert membership(Family.of(images, Radii()), padded, np.zeros(40), np.zeros(40)) == [
        "layer 'conv' has another geometry"
    ]


# --- realise ------------------------------------------------------------------------------------------------------


class RandomChoice:
    """Wants anything: inside, exactly at the ends, or far outside (`reach` > 1)."""

    def __init__(self, rng, reach, corner):
        self.rng, self.reach, self.corner = rng, reach, corner

    def _draw(self, shape):
        signs = self.rng.choice([-1.0, 1.0], size=shape)
        return self.reach * (signs if self.corner else signs * self.rng.random(shape))

    def weights(self, index, layer, x, radius):
        weight, bias = layer.weight, layer.bias
        return weight + self._draw(weight.shape) * radius[0], bias + self._draw(bias.shape) * radius[1]

    def offset(self, index, value, radius):
        return self._draw(value.shape) * radius


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)], ids=["free", "clipped"])
@pytest.mark.parametrize("name", NETWORKS)
def test_whatever_is_wanted_realise_returns_a_member(name, clip, rng):
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


def test_realise_goes_to_the_very_ends(rng):
    """Extreme wishes come out within two units in the last place of the end: rounding inwards costs no more."""
    network = mlp(rng, 3, 4, 2)
    family, x = Family.of(network, Radii(input=0.1, weight=0.2, bias=0.3, activation=0.4)), rng.random(3)
    witness = realise(family, x, x + 9, 0, RandomChoice(rng, 50.0, True))
    np.testing.assert_allclose(witness.input, x + 0.1, rtol=1e-15)
    for i, radius in ((1, 0.2), (3, 0.2)):
        shift = np.abs(witness.network.layers[i].weight - network.layers[i].weight)
        np.testing.assert_allclose(shift, radius, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(np.abs(witness.network.layers[2].offset), 0.4)


def test_realise_refuses_numbers_that_are_not_finite(rng):
    network = mlp(rng, 3, 2)
    with pytest.raises(InternalError, match="NaN or infinity"):
        realise(Family.of(network, Radii()), np.zeros(3), np.full(3, np.nan), 0, RandomChoice(rng, 1.0, True))


# --- real quantisers ------------------------------------------------------------------------------------------------


def round_by(values, how, rng):
    """Nearest, floor, ceiling, or stochastic rounding to whole numbers."""
    if how == "nearest":
        return np.round(values)
    if how == "stochastic":
        return np.floor(values + rng.random(np.shape(values)))
    return np.floor(values) if how == "floor" else np.ceil(values)


def symmetric(values, bits, how, rng, axis=None):
    """Symmetric integers in the narrow range, back in floating point; the step too."""
    top = np.abs(values).max(axis=axis, keepdims=axis is not None)
    step = np.where(top > 0, top, 1.0) / (2 ** (bits - 1) - 1)
    limit = 2 ** (bits - 1) - 1
    return step * np.clip(round_by(values / step, how, rng), -limit, limit), step


def asymmetric(values, bits, how, rng, low, high):
    """Affine integers over [low, high] widened to 0, with a whole zero point, saturating."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (2**bits - 1) or 1.0
    zero = np.round(-low / step)
    return step * (np.clip(round_by(values / step, how, rng) + zero, 0, 2**bits - 1) - zero), step


def quantise_weights(network, steps, bits, how, rng, kind):
    """Weights by a real quantiser, biases as whole multiples of s_x s_w."""
    changes = {}
    for i in network.weighted:
        layer = network.layers[i]
        if kind == "asymmetric":
            weight, step = asymmetric(layer.weight, bits, how, rng, layer.weight.min(), layer.weight.max())
        else:
            axis = tuple(range(1, layer.weight.ndim)) if kind == "channel" else None
            weight, step = symmetric(layer.weight, bits, how, rng, axis)
        unit = np.broadcast_to(np.ravel(step), layer.bias.shape) * steps[layer.inputs[0]]
        bias = unit * round_by(layer.bias / unit, how, rng) if layer.has_bias else layer.bias
        changes[i] = replace(layer, weight=weight, bias=bias)
    return network.with_layers(changes)


def run_quantised(quantised, x, ranges, bits, how, rng):
    """The quantised network on one quantised input, each activation quantised and clipped; offsets as found."""
    values, changes = [], {}
    for i, layer in enumerate(quantised.layers):
        if isinstance(layer, Input):
            values.append(asymmetric(x, bits, how, rng, *ranges[0])[0])
        elif isinstance(layer, Relu):
            exact = np.maximum(values[layer.inputs[0]], 0)
            rounded = asymmetric(exact, bits, how, rng, *ranges[i])[0]
            changes[i] = replace(layer, offset=rounded - exact)
            values.append(rounded)
        else:
            one = Network((Input("i", (), (values[layer.inputs[0]].size,)), replace(layer, inputs=(0,))))
            values.append(one.evaluate(values[layer.inputs[0]][None])[0])
    return quantised.with_layers(changes), values


@pytest.mark.parametrize("how", ["nearest", "floor", "ceil", "stochastic"])
@pytest.mark.parametrize("kind", ["tensor", "channel", "asymmetric"])
@pytest.mark.parametrize("name", ["dense", "scaled_input", "conv_attributes", "conv_pool"])
def test_real_quantisers_land_in_the_family(name, kind, how, rng):
    """Whole int8 networks: their weights, biases, input and every activation error are those of a member, the radii
    of clipped activations being those of the sample; and every value lies inside the bounds."""
    network = NETWORKS[name](rng)
    data = rng.normal(size=(8, network.input_size))
    rounding = "nearest" if how == "nearest" else "any"
    scheme = "channel" if kind == "channel" else "tensor"
    family = Family.of(network, Radii.from_bits(8, scheme, rounding, network, data))
    ranges, _ = calibrate(network, data)
    steps = [(high - low) / 255 for low, high in ranges]
    quantised = quantise_weights(network, steps, 8, how, rng, kind)
    x = np.concatenate([data[:3], 1.5 * rng.normal(size=(4, network.input_size))])  # some leave the calibrated range
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *(model.tensor(end) for end in family.box(x)))
    for row in range(len(x)):
        member, values = run_quantised(quantised, x[row], ranges, 8, how, rng)
        own = family.with_activation({i: r[row].numpy() for i, r in bounds.activation.items()})
        assert membership(own, member, x[row], values[0]) == []
        for lower, upper, value in zip(bounds.lower, bounds.upper, values, strict=True):
            assert (lower[row].numpy() - 1e-9 <= value).all() and (value <= upper[row].numpy() + 1e-9).all()


def near_ties(top, levels, rng):
    """float32 numbers next to (k + 1/2) steps near the top of the range, where float32 rounds worst."""
    ties = (rng.integers(max(0, levels - 60), levels, 4000) + 0.5) * (top / levels)
    near = ties.astype(np.float32) * (1 + rng.integers(-6, 7, 4000).astype(np.float32) * np.float32(2**-24))
    return np.minimum(near, np.float32(top)).astype(np.float64)


def float32_nearest(values, top, levels):
    """Round to nearest with every operation in float32, the step included, as runtimes do."""
    step = np.float32(top) / np.float32(levels)
    whole = np.clip(np.round(values.astype(np.float32) / step), -levels, levels)
    return (whole.astype(np.float32) * step).astype(np.float64)


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_float32_quantisers_land_in_the_family(bits, rng):
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
    member = network.with_layers({2: replace(layers[2], weight=rounded[None], bias=new_bias)})
    assert membership(family, member, x, x_hat) == []
    half = {"weight": {2: np.full((1, n), weight.max() / (2**bits - 2))}, "input": np.full(n, data.max() / levels / 2)}
    assert membership(replace(family, **half), member, x, x_hat) != []


def test_nearest_radii_do_not_cover_floor(rng):
    """So the tests above can fail: half a step is too little for floor."""
    network = mlp(rng, 6, 5, 3)
    data = rng.normal(size=(8, 6))
    family = Family.of(network, Radii.from_bits(8, "tensor", "nearest", network, data))
    steps = [(high - low) / 255 for low, high in calibrate(network, data)[0]]
    quantised = quantise_weights(network, steps, 8, "floor", rng, "tensor")
    assert "a weight of 'fc0' leaves its radius" in membership(family, quantised, data[0], data[0])


@pytest.mark.parametrize("rounding, how", [("nearest", "nearest"), ("any", "floor"), ("any", "stochastic")])
def test_the_paper_convention_covers_its_fixed_point_quantiser(rounding, how, rng):
    """Fixed point with b bits: inputs in [0, 1] in steps of 2^-b, weights in steps of 2^-(b-1)."""
    network, bits = mlp(rng, 4, 6, 3), 6
    family = Family.of(network, Radii.from_bits(bits, rounding=rounding))
    step = 2.0 ** -(bits - 1)
    changes = {}
    for i in network.weighted:
        layer = network.layers[i]
        rounded = [step * round_by(v / step, how, rng) for v in (layer.weight, layer.bias)]
        changes[i] = replace(layer, weight=rounded[0], bias=rounded[1])
    for x in rng.random((20, 4)):
        x_hat = step / 2 * round_by(x / (step / 2), how, rng)
        exact = np.maximum(network.with_layers(changes).evaluate_all(x_hat[None])[1][0], 0)
        offset = step * round_by(exact / step, how, rng) - exact
        member = network.with_layers({**changes, 2: replace(network.layers[2], offset=offset)})
        assert membership(family, member, x, x_hat) == []


def test_sampled_members_pass_membership_too(rng):
    """The sampling oracle of these tests and membership agree on what the input may be."""
    network = mlp(rng, 4, 3)
    family = Family.of(network, Radii(input=0.125, input_range=(-1.0, 0.5)), (-2.0, 2.0))
    for x in np.clip(np.concatenate([inputs(network, rng), np.eye(4)]), -2, 2):
        low, high = family.inner_box(x[None])
        for value in sample_members(family, x, rng, 20, True)[0]:
            assert membership(family, network, x, np.clip(value, low[0], high[0])) == []
            assert (np.abs(value - np.clip(value, low[0], high[0])) < 1e-12).all()


def test_ceilings_of_another_sample_are_not_enough(rng):
    """Membership of a clipped activation is judged with the radii of its own sample."""
    network = Network((Input("x", (), (1,)), Relu("r", (0,), (1,))))
    family = Family.of(network, Radii(activation=0.1, ceilings={"r": 1.0}))
    model = BoundModel.of(family)
    x = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
    bounds = interval_bounds(model, x, x)
    member = network.with_layers({1: Relu("r", (0,), (1,), offset=np.array([-2.0]))})
    own = [family.with_activation({1: radius.numpy()}) for radius in bounds.activation[1]]
    verdicts = [membership(own[row], member, x[row].numpy(), x[row].numpy()) for row in range(2)]
    assert len(verdicts[0]) == 1 and verdicts[1] == []


def test_convolution_layers_are_replaced_with_their_geometry(rng):
    network = NETWORKS["conv_attributes"](rng)
    family, x = Family.of(network, random_radii(network, rng)), rng.random(40)
    member = realise(family, x, x, 0, RandomChoice(rng, 1.0, False)).network
    layer = member.layers[1]
    assert isinstance(layer, Conv) and layer.groups == 2 and layer.pads == (1, 0, 2, 1)


def test_a_truth_value_is_no_radius():
    network = mlp(np.random.default_rng(0), 2, 3, 2)
    for wrong in (True, [True, False]):
        with pytest.raises(RadiiError, match="not a number"):
            Family.of(network, Radii(input=wrong))


def test_no_member_is_made_outside_the_clip(rng):
    network = mlp(rng, 2, 3, 2)
    family = Family.of(network, Radii(input=0.1), (0.0, 1.0))
    x = np.array([0.5, 1.2])
    with pytest.raises(DataError, match="clip-input"):
        family.inner_box(x[None])


def test_a_pruned_channel_still_rounds_its_bias(rng):
    """Int8 toolchains give a channel of zeros the step 1, so its bias is rounded to steps of s_x."""
    network = mlp(rng, 3, 4, 2)
    weight = network.layers[1].weight.copy()
    weight[2] = 0.0
    network = network.with_layers({1: replace(network.layers[1], weight=weight)})
    x = rng.random((50, 3))
    family = Family.of(network, Radii.from_bits(8, "channel", "nearest", network, x))
    assert family.weight[1][2].max() == 0.0
    assert family.bias[1][2] >= 0.5 * x.max() / 255
    others = np.delete(family.bias[1], 2)
    assert others.max() < 0.1 * family.bias[1][2]


def test_weights_below_the_steps_of_float32_vanish(rng):
    """Toolchains take the step 1 where max|w| / 127 is no normal float32: weights become 0, biases multiples of s_x."""
    network = mlp(rng, 3, 4, 2)
    weight = network.layers[1].weight.copy()
    weight[2] *= 1e-39
    network = network.with_layers({1: replace(network.layers[1], weight=weight)})
    x = rng.random((50, 3))
    family = Family.of(network, Radii.from_bits(8, "channel", "nearest", network, x))
    assert (family.weight[1][2] >= np.abs(weight[2]).max()).all()
    assert family.bias[1][2] >= 0.5 * x.max() / 255


@pytest.mark.parametrize("calibration", [np.zeros(3), np.zeros((2, 5)), "nothing", [[1.0], [1.0, 2.0]]])
def test_calibration_data_of_the_wrong_shape(calibration, rng):
    network = mlp(rng, 3, 4, 2)
    with pytest.raises(RadiiError, match="calibration data"):
        Radii.from_bits(8, "tensor", "any", network, calibration)


def test_families_of_single_samples_share_the_weights_intervals():
    """Every falsified sample keeps its family: thousands of copies of all weights would fill the memory."""
    network = NETWORKS["dense"](np.random.default_rng(3))
    family = Family.of(network, Radii(weight=0.1, bias=0.1, activation=0.1))
    other = family.with_activation({i: np.full(network.layers[i].size, 0.3) for i in network.relus})
    assert other.inner_weights is family.inner_weights
    assert all((radius == 0.3).all() for radius in other.activation.values())
