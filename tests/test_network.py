"""The network itself, against explicit loops and scipy; refusals of wrong wiring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate2d

from qverify.arrays import Array
from qverify.errors import ModelError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Add, Conv, Dense, Input, Relu, Scale
from qverify.network import Network, margins
from tests.support.networks import NETWORKS, conv, conv_of, convolve, dense, inputs, mlp, random_radii, sample_member

GEOMETRIES: dict[str, tuple[Any, ...]] = {
    "plain": ((2, 4, 5), (3, 2, 2, 3), {}),
    "strides": ((2, 5, 7), (3, 2, 2, 3), {"strides": (2, 3)}),
    "leftover": ((1, 6, 5), (2, 1, 2, 2), {"strides": (3, 2)}),
    "pads": ((2, 3, 4), (3, 2, 2, 3), {"pads": (1, 0, 2, 3)}),
    "dilations": ((2, 6, 7), (3, 2, 2, 3), {"dilations": (3, 2)}),
    "groups": ((6, 3, 4), (4, 3, 2, 1), {"groups": 2}),
    "depthwise": ((3, 3, 4), (6, 1, 2, 2), {"groups": 3}),
    "height one": ((2, 1, 9), (3, 2, 1, 4), {"strides": (1, 2), "pads": (0, 1, 0, 2)}),
    "everything": (
        (4, 5, 6),
        (6, 2, 2, 3),
        {"strides": (2, 1), "pads": (0, 2, 1, 1), "dilations": (2, 3), "groups": 2},
    ),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_conv_equals_explicit_loops(name: str, rng: np.random.Generator) -> None:
    """Oracle: loops over outputs and taps, written from the ONNX definition."""
    in_shape, kernel, more = GEOMETRIES[name]
    layer = conv(rng, "c", 0, in_shape, kernel, **more)
    network = Network((Input("x", (), in_shape), layer))
    x = rng.normal(size=(3, *in_shape))
    wanted = convolve(layer, np.stack([layer.weight] * 3), np.stack([layer.bias] * 3), x.reshape(3, -1))
    np.testing.assert_allclose(network.evaluate(x), wanted, rtol=0, atol=1e-12)
    assert layer.positions * len(layer.bias) == wanted.shape[1] == layer.size
    assert layer.fan_in == np.prod(kernel[1:])


def test_conv_equals_scipy(rng: np.random.Generator) -> None:
    """Oracle: scipy.signal.correlate2d on the padded image, every stride-th value of it."""
    layer = conv(rng, "c", 0, (2, 6, 7), (3, 2, 2, 3), strides=(2, 3), pads=(1, 2, 0, 1))
    x = rng.normal(size=(2, 6, 7))
    image = np.pad(x, ((0, 0), (1, 0), (2, 1)))
    wanted = [sum(correlate2d(image[i], w[i], mode="valid") for i in range(2))[::2, ::3] for w in layer.weight]
    got = Network((Input("x", (), (2, 6, 7)), layer)).evaluate(x[None])[0].reshape(layer.out_shape)
    np.testing.assert_allclose(got, np.stack(wanted) + layer.bias[:, None, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluate_equals_the_independent_forward_pass(name: str, rng: np.random.Generator) -> None:
    """Oracle: the member with all radii zero, by the loops of `networks.sample_member`."""
    network = NETWORKS[name](rng)
    family = Family.of(network, Radii())
    for x in inputs(network, rng):
        wanted = sample_member(family, x, rng, corner=True)
        for got, value in zip(network.evaluate_all(x[None]), wanted, strict=True):
            np.testing.assert_allclose(got[0], value, rtol=0, atol=1e-12)


def test_relu_applies_its_offset_and_stays_non_negative() -> None:
    layers = (Input("x", (), (4,)), Relu("r", (0,), (4,), offset=np.array([0.5, -0.5, 0.5, -0.5])))
    got = Network(layers).evaluate(np.array([[1.0, 0.25, -3.0, 2.0]]))
    np.testing.assert_array_equal(got, [[1.5, 0.0, 0.5, 1.5]])


def test_margins_by_hand() -> None:
    outputs = np.array([[1.0, 4.0, 2.5], [3.0, 3.0, -1.0]])
    np.testing.assert_array_equal(margins(outputs, np.array([1, 0])), [1.5, 0.0])
    np.testing.assert_array_equal(margins(outputs, np.array([2, 2])), [-1.5, -4.0])


def test_inputs_of_any_shape_and_type_are_flattened(rng: np.random.Generator) -> None:
    network = NETWORKS["conv_attributes"](rng)
    x = rng.integers(0, 255, size=(2, 2, 4, 5)).astype(np.uint8)
    np.testing.assert_array_equal(network.evaluate(x), network.evaluate(x.reshape(2, 40).astype(float)))


def test_arrays_are_copies_and_read_only(rng: np.random.Generator) -> None:
    weight = rng.normal(size=(3, 2))
    layer = Dense("d", (0,), (3,), weight=weight, bias=np.zeros(3))
    weight[0, 0] = 99.0
    assert layer.weight[0, 0] != 99.0
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0, 0] = 1.0


def test_what_a_network_knows_about_itself(rng: np.random.Generator) -> None:
    network = NETWORKS["input_twice"](rng)
    assert network.consumers[0] == (1, 4, 6) and network.consumers[-1] == ()
    assert network.index("relu1") == network.relus[-1]
    with pytest.raises(KeyError):
        network.index("nothing")
    assert not network.shares_weights and NETWORKS["conv_conv"](rng).shares_weights
    scaled = NETWORKS["scaled_input"](rng)
    assert [scaled.layers[i].name for i in scaled.weighted] == ["fc", "out"]
    pooled = NETWORKS["conv_pool"](rng)
    assert [pooled.layers[i].name for i in pooled.weighted] == ["conv", "out"]


def test_a_kernel_used_once_does_not_count_as_shared(rng: np.random.Generator) -> None:
    layer = conv(rng, "c", 0, (2, 2, 3), (4, 2, 2, 3))
    assert layer.positions == 1
    assert not Network((Input("x", (), (2, 2, 3)), layer)).shares_weights


def test_with_layers_replaces_and_keeps_the_rest(rng: np.random.Generator) -> None:
    network = mlp(rng, 3, 4, 2)
    other = network.with_layers({3: dense(rng, "fc1", 2, 2, 4)})
    assert other.layers[:3] == network.layers[:3] and other.layers[3] is not network.layers[3]


def _wirings(rng: np.random.Generator) -> dict[str, Any]:
    x, fc = Input("x", (), (4,)), dense(rng, "fc", 0, 3, 4)
    return {
        "needs an input": (fc, x),
        "needs an input and": (x,),
        "share a name": (x, fc, dense(rng, "fc", 1, 2, 3)),
        r"'late' has the wrong producers \(2,\)": (x, fc, dense(rng, "late", 2, 3, 3)),
        r"'late' has the wrong producers \(-1,\)": (x, dense(rng, "late", -1, 3, 4)),
        r"'sum' has the wrong producers \(1,\)": (x, fc, Add("sum", (1,), (3,))),
        r"'relu' has the wrong producers \(0, 1\)": (x, fc, Relu("relu", (0, 1), (3,))),
        r"'x2' has the wrong producers \(\)": (x, Input("x2", (), (4,))),
        "'fc2' expects 5 inputs": (x, fc, dense(rng, "fc2", 1, 2, 5)),
        "'sum' expects 3 inputs": (x, fc, Add("sum", (0, 1), (3,))),
        "'relu' expects 4 inputs": (x, fc, Relu("relu", (1,), (4,))),
        "'conv' expects 8 inputs": (x, conv(rng, "conv", 0, (2, 2, 2), (1, 2, 1, 1))),
        "output of layer 'fc' is never used": (x, fc, dense(rng, "fc2", 0, 3, 4)),
    }


def test_bad_wiring_is_refused(rng: np.random.Generator) -> None:
    for wording, layers in _wirings(rng).items():
        with pytest.raises(ModelError, match=wording):
            Network(layers)


def test_layers_refuse_numbers_that_do_not_fit(rng: np.random.Generator) -> None:
    def make_dense(weight: Array | list[list[float]], bias: Array | list[float], shape: tuple[int] = (2,)) -> Any:
        return Dense("d", (0,), shape, weight=weight, bias=bias)  # type: ignore[arg-type]

    with pytest.raises(ModelError, match="weight of layer 'd' holds NaN"):
        make_dense([[np.nan], [1.0]], [0.0, 0.0])
    with pytest.raises(ModelError, match="bias of layer 'd' holds NaN or infinite"):
        make_dense([[1.0], [1.0]], [0.0, np.inf])
    with pytest.raises(ModelError, match="does not give"):
        make_dense(np.ones((3, 4)), np.ones(2))
    with pytest.raises(ModelError, match="bias has shape"):
        make_dense(np.ones((2, 4)), np.ones(3))
    with pytest.raises(ModelError, match="must have 3 elements"):
        Scale("s", (0,), (3,), scale=np.ones(3), shift=np.ones(1))
    with pytest.raises(ModelError, match="offset of layer 'r' holds NaN"):
        Relu("r", (0,), (1,), offset=np.array([np.nan]))


def test_convolutions_refuse_geometry_that_does_not_fit() -> None:
    one = np.ones((2, 1, 2, 2))
    with pytest.raises(ModelError, match="do not fit"):
        conv_of("c", 0, (2, 3, 3), one, np.zeros(2))
    with pytest.raises(ModelError, match="do not fit"):
        conv_of("c", 0, (1, 3, 3), one, np.zeros(3))
    with pytest.raises(ModelError, match="do not fit"):
        conv_of("c", 0, (3, 3, 3), one, np.zeros(2), groups=3)
    with pytest.raises(ModelError, match="does not fit into the padded input"):
        conv_of("c", 0, (1, 1, 3), one, np.zeros(2))
    with pytest.raises(ModelError, match="does not fit into the padded input"):
        Conv("c", (0,), (2, 3, 3), weight=one, bias=np.zeros(2), in_shape=(1, 3, 3))


@pytest.mark.parametrize("name", NETWORKS)
def test_random_radii_resolve_against_every_network(name: str, rng: np.random.Generator) -> None:
    network = NETWORKS[name](rng)
    family = Family.of(network, random_radii(network, rng))
    assert set(family.weight) == set(family.bias) == set(network.weighted)
    assert set(family.activation) == {*network.relus, *network.activations}


@pytest.mark.parametrize(
    "wrong", [{"strides": (0, 1)}, {"dilations": (1, 0)}, {"pads": (0, -1, 0, 0)}, {"weight": np.zeros((2, 4))}]
)
def test_a_convolution_with_senseless_geometry_is_refused(wrong: dict[str, Any]) -> None:
    fields = {"weight": np.ones((1, 1, 2, 2)), "bias": np.zeros(1), "in_shape": (1, 3, 3)} | wrong
    with pytest.raises(ModelError, match="kernel has 4 axes"):
        Conv("c", (0,), (1, 2, 2), **fields)  # type: ignore[arg-type]
