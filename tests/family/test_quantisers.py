"""What is said of a quantiser beside its bits: every word changes the family as it should, and files that toolchains
write so lie in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.ranges import calibrate
from qverify.family.schemes import rounded_places
from qverify.family.steps import LayerBits, Quantiser
from qverify.family.widths import widths
from qverify.layers import BatchNorm, Conv, Dense, Input, Relu
from qverify.network import Network
from tests.support.networks import NETWORKS

PLAIN = Quantiser(8, "channel", "nearest")


def made(rng: np.random.Generator, name: str, quantiser: Quantiser) -> tuple[Network, Family, Any]:
    network = NETWORKS[name](rng)
    x = rng.normal(size=(30, network.input_size))
    return network, Family.of(network, Radii.of(quantiser, network, x)), x


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8", {"bits": 8}),
        (" W4A8 ", {"bits": 8, "weight_bits": 4, "activation_bits": 8}),
        ("w2a16", {"bits": 16, "weight_bits": 2, "activation_bits": 16}),
    ],
)
def test_widths_as_people_say_them(text: str, found: dict[str, int]) -> None:
    assert widths(text) == found


@pytest.mark.parametrize("text", ["W4", "A8", "8bit", "W4A8B32", "", "W-4A8", "4.0"])
def test_what_is_no_width(text: str) -> None:
    from qverify.errors import UsageError

    with pytest.raises(UsageError, match="write a number such as 8, or W4A8"):
        widths(text)


def test_bits_of_weights_and_activations_are_their_own(rng: np.random.Generator) -> None:
    state = rng.bit_generator.state
    families = []
    for quantiser in (
        PLAIN,
        replace(PLAIN, weight_bits=4),
        replace(PLAIN, activation_bits=4),
        replace(PLAIN, input_bits=4),
    ):
        rng.bit_generator.state = state
        families.append(made(rng, "dense", quantiser)[1])
    plain, weights, activations, entry = families
    assert plain.entry is not None and entry.entry is not None and activations.entry is not None
    first = min(plain.weight)
    assert weights.weight[first].max() == pytest.approx(127 / 7 * plain.weight[first].max(), rel=1e-3)
    assert (entry.weight[first] == plain.weight[first]).all() and (
        activations.weight[first] == plain.weight[first]
    ).all()
    for i in plain.points:
        assert weights.activation[i].max() == plain.activation[i].max() == entry.activation[i].max()
        assert activations.activation[i].max() == pytest.approx(17 * plain.activation[i].max(), rel=1e-3)
    assert entry.entry.radius.max() == pytest.approx(17 * plain.entry.radius.max(), rel=1e-3)
    assert activations.entry.radius.max() == entry.entry.radius.max()


@pytest.mark.parametrize("name", ["conv_pool", "residual", "dense", "add_last"])
def test_toolchains_round_what_every_layer_gives_once(name: str, rng: np.random.Generator) -> None:
    network = NETWORKS[name](rng)
    places = rounded_places(network, "onnxruntime")
    assert len(network.layers) - 1 in places and set(network.relus) <= set(places)
    for i in range(1, len(network.layers)):
        read_by = [network.layers[k] for k in network.consumers[i]]
        only_a_relu = len(read_by) == 1 and isinstance(read_by[0], Relu)
        assert (i in places) is not only_a_relu
    assert rounded_places(network, "activations") == list(network.relus)


def test_an_average_has_the_range_of_what_it_reads_in_tflite(rng: np.random.Generator) -> None:
    network, family, _ = made(rng, "conv_pool", replace(PLAIN, points="tflite"))
    rng = np.random.default_rng(0)
    for k, layer in enumerate(network.layers):
        if not isinstance(layer, Conv) or layer.quantised:
            continue
        (point,) = [family.points[i] for i in family.own(k) if i in family.points]
        (before,) = [family.points[i] for i in family.own(layer.inputs[0]) if i in family.points]
        assert point.high[0].max() == before.high[0].max()
        return
    pytest.fail("no average in it")


def test_a_mean_over_all_positions_may_have_its_own_range_in_tflite() -> None:
    """MEAN of TensorFlow Lite, unlike its AVERAGE_POOL_2D: the end of the range is anywhere between the two."""
    image = (1, 2, 2)
    mean = Conv(
        "mean", (0,), (1, 1, 1), weight=np.full((1, 1, 2, 2), 0.25), bias=np.zeros(1), in_shape=image, quantised=False
    )
    last = Dense("out", (1,), (2,), weight=np.ones((2, 1)), bias=np.zeros(2))
    network = Network((Input("x", (), image), mean, last))
    x = np.array([[0.0, 4.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]])
    radii = Radii.of(replace(PLAIN, points="tflite"), network, x)
    point = radii.points["mean"]
    assert sorted([float(np.max(end)) for end in point.high]) == pytest.approx([1.0, 4.0], rel=1e-2)


def test_exact_inputs_have_no_rounding_point(rng: np.random.Generator) -> None:
    _, family, x = made(rng, "dense", replace(PLAIN, input="exact"))
    low, high = family.box(x)
    assert family.entry is None and (low == x).all() and (high == x).all()


def test_symmetric_activations_have_steps_of_the_larger_side(rng: np.random.Generator) -> None:
    network, family, x = made(rng, "dense", replace(PLAIN, activations="symmetric"))
    assert family.entry is not None
    largest = abs(x).max()
    assert family.entry.high[1].max() == pytest.approx(largest, rel=1e-5)
    assert family.entry.low[0].min() == pytest.approx(-largest * 128 / 127, rel=1e-5)  # as signed integers have it
    assert family.entry.low[1].max() == pytest.approx(-largest, rel=1e-5)
    assert family.entry.radius.max() == pytest.approx(largest / 127 / 2, rel=1e-3)
    for i in network.relus:
        values = network.evaluate_all(x)[i]
        assert family.activation[i].max() == pytest.approx(values.max() / 127 / 2, rel=1e-3)


def test_blocks_have_steps_of_their_own(rng: np.random.Generator) -> None:
    network = NETWORKS["dense"](rng)
    layer: Any = network.layers[network.weighted[0]]
    assert isinstance(layer, Dense)
    x = rng.normal(size=(30, network.input_size))
    quantiser = replace(PLAIN, layers=((layer.name, LayerBits(bits=4, block=3)),))
    family = Family.of(network, Radii.of(quantiser, network, x))
    radius = family.weight[network.weighted[0]]
    for row in range(layer.weight.shape[0]):
        for start in range(0, layer.weight.shape[1], 3):
            some = slice(start, start + 3)
            step = abs(layer.weight[row, some]).max() / 7
            wanted = np.where(layer.weight[row, some] == 0, 0.0, step / 2)
            assert radius[row, some] == pytest.approx(wanted, rel=1e-3)
    other = Family.of(network, Radii.of(PLAIN, network, x))
    assert (family.weight[network.weighted[1]] == other.weight[network.weighted[1]]).all()


def test_what_is_0_stays_0(rng: np.random.Generator) -> None:
    network, family, _ = made(rng, "dense", PLAIN)
    for i in network.weighted:
        layer: Any = network.layers[i]
        assert (family.weight[i][layer.weight == 0] == 0).all() and (layer.weight == 0).any()
        assert (family.weight[i][layer.weight != 0] > 0).all()
        assert (family.bias[i][layer.bias == 0] == 0).all()


def test_a_folded_bias_of_0_is_a_difference_that_may_round(rng: np.random.Generator) -> None:
    network = NETWORKS["dense"](rng)
    first: Any = network.layers[network.weighted[0]]
    ones = np.ones(first.size)
    bare = replace(first, bias=0.0 * ones)
    norm = BatchNorm("norm", first.name, bare, scale=ones, offset=ones, mean=ones, deviation=ones)
    layers = tuple(bare if layer is first else layer for layer in network.layers)
    for folded in ((), (norm,)):
        changed = replace(network, layers=layers, batchnorms=folded)
        x = rng.normal(size=(30, network.input_size))
        family = Family.of(changed, Radii.of(replace(PLAIN, batchnorm="folded"), changed, x))
        assert (family.bias[network.weighted[0]] > 0).all() == bool(folded)


@pytest.mark.parametrize(
    ("quantiser", "said"),
    [
        (replace(PLAIN, weight_bits=1), "bit-width of the weight is 1"),
        (replace(PLAIN, bias_bits=40), "bit-width of the bias is 40"),
        (replace(PLAIN, points="everywhere"), "Unknown points 'everywhere'"),
        (replace(PLAIN, ranges="best"), "Unknown ranges 'best'"),
        (replace(PLAIN, layers=(("a", LayerBits(block=0)),)), "blocks of 0 weights"),
        (replace(PLAIN, layers=(("a", LayerBits(scheme="paper")),)), "has scheme 'paper'"),
        (Quantiser(8, points="tflite"), "Scheme paper has no points"),
        (Quantiser(8, rounding="double"), "knows no runtimes"),
        (Quantiser(8, bias_bits=8), "Scheme paper has no bias bits"),
    ],
)
def test_what_no_quantiser_is(quantiser: Quantiser, said: str, rng: np.random.Generator) -> None:
    network = NETWORKS["dense"](rng)
    with pytest.raises(RadiiError, match=said):
        Radii.of(quantiser, network, rng.normal(size=(4, network.input_size)))


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_calibrators_take_ranges_within_those_of_all_values(method: str, rng: np.random.Generator) -> None:
    network = NETWORKS["conv_pool"](rng)
    x = rng.normal(size=(256, network.input_size))
    x[0] *= 30.0
    every = Family.of(network, Radii.of(replace(PLAIN, points="onnxruntime"), network, x))
    some = Family.of(network, Radii.of(replace(PLAIN, points="onnxruntime", ranges=method), network, x))
    assert every.points.keys() == some.points.keys()
    for i in every.points:
        assert some.points[i].high[0].max() <= every.points[i].high[1].max() * 1.01 + 1e-6


def test_a_percentile_leaves_the_largest_out(rng: np.random.Generator) -> None:
    network = NETWORKS["dense"](rng)
    x = rng.normal(size=(2000, network.input_size))
    every, some = calibrate(network, x), calibrate(network, x, (), "percentile")
    assert every.outputs[0][1] == x.max() > some.outputs[0][1] > np.quantile(x, 0.999)


@pytest.mark.parametrize("rounding", ["float32", "single", "double", "truncate"])
def test_rules_of_runtimes_round_weights_to_nearest(rounding: str, rng: np.random.Generator) -> None:
    state = rng.bit_generator.state
    families = []
    for one in ("nearest", rounding):
        rng.bit_generator.state = state
        families.append(made(rng, "dense", replace(PLAIN, rounding=one))[1])
    nearest, other = families
    assert all((nearest.weight[i] == other.weight[i]).all() for i in nearest.weight)
    shares = {"float32": (1.0, 1.0), "single": (1.0, 1.0), "double": (1.0, 1.51), "truncate": (1.99, 2.0)}[rounding]
    for i in nearest.points:
        factor = other.activation[i].max() / nearest.activation[i].max()
        assert shares[0] <= factor <= shares[1]
