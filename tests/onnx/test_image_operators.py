"""Conv, BatchNormalization and pooling as the loader reads them, against onnxruntime, loops and numpy by hand."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from qverify.errors import UnsupportedModel
from qverify.onnx.reader import load
from tests.support.networks import convolve, known_layers
from tests.support.onnx_models import BN, NEWEST_OPSET, agree, kinds, model, node, statistics, weights

# --- Conv -------------------------------------------------------------------------------------------------

# Name: (channels and sizes of x, shape of w, attributes, pads read as (top, left, bottom, right))
CONVS: dict[str, tuple[Any, ...]] = {
    "1-d": ((2, 7), (3, 2, 3), {}, (0, 0, 0, 0)),
    "1-d, strides, pads, dilation": (
        (2, 7),
        (3, 2, 3),
        {"strides": [2], "pads": [1, 3], "dilations": [2]},
        (0, 1, 0, 3),
    ),
    "1-d, SAME_LOWER": ((1, 6), (2, 1, 3), {"strides": [2], "auto_pad": "SAME_LOWER"}, (0, 1, 0, 0)),
    "2-d": ((2, 5, 4), (3, 2, 2, 3), {"kernel_shape": [2, 3]}, (0, 0, 0, 0)),
    "strides": ((1, 6, 7), (2, 1, 2, 3), {"strides": [3, 2]}, (0, 0, 0, 0)),
    "asymmetric pads": ((1, 4, 3), (2, 1, 3, 2), {"pads": [2, 0, 1, 1]}, (2, 0, 1, 1)),
    "dilations": ((1, 6, 7), (2, 1, 2, 3), {"dilations": [3, 2]}, (0, 0, 0, 0)),
    "groups": ((4, 3, 4), (6, 2, 2, 2), {"group": 2}, (0, 0, 0, 0)),
    "depthwise": ((3, 3, 4), (6, 1, 2, 1), {"group": 3, "strides": [1, 2]}, (0, 0, 0, 0)),
    "SAME_UPPER": ((1, 5, 6), (2, 1, 2, 4), {"auto_pad": "SAME_UPPER"}, (0, 1, 1, 2)),
    "SAME_LOWER": ((1, 5, 6), (2, 1, 2, 4), {"auto_pad": "SAME_LOWER"}, (1, 2, 0, 1)),
    "SAME_UPPER, strides": ((1, 5, 6), (2, 1, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (1, 0, 1, 1)),
    "SAME_UPPER, long strides": ((1, 5, 6), (2, 1, 1, 1), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (0, 0, 0, 0)),
    "VALID": ((1, 5, 6), (2, 1, 3, 3), {"auto_pad": "VALID", "strides": [2, 1]}, (0, 0, 0, 0)),
    "everything": (
        (4, 6, 5),
        (2, 2, 2, 2),
        {"strides": [1, 2], "pads": [1, 0, 0, 2], "dilations": [3, 1], "group": 2},
        (1, 0, 0, 2),
    ),
}


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", CONVS)
def test_conv(name: str, with_bias: bool, rng: np.random.Generator) -> None:
    """Oracles: onnxruntime, and loops over all taps for the layer's numbers as read."""
    shape, w_shape, attributes, pads = CONVS[name]
    constants = {"w": weights(rng, *w_shape)} | ({"b": weights(rng, w_shape[0])} if with_bias else {})
    built = model([node("Conv", "x w b" if with_bias else "x w", "y", **attributes)], constants, ["N", *shape])
    network = load(built)
    layer = known_layers(network)[1]
    assert kinds(network) == "Conv" and layer.has_bias == with_bias and layer.pads == pads and layer.quantised
    agree(network, built, rng)
    x = rng.normal(size=(2, network.input_size))
    wanted = convolve(layer, np.stack([layer.weight] * 2), np.stack([layer.bias] * 2), x)
    np.testing.assert_allclose(network.evaluate(x), wanted, rtol=0, atol=1e-12)


# Name: (shape of the constant, layers read) added to a convolution (3, 4, 2) without bias
CONV_BIASES = {
    "per channel": ((3, 1, 1), "Conv"),
    "per channel, full rank": ((1, 3, 1, 1), "Conv"),
    "scalar": ((), "Conv"),
    "per row": ((4, 1), "Conv Scale"),
    "per column": ((2,), "Conv Scale"),
    "per element": ((3, 4, 2), "Conv Scale"),
}


@pytest.mark.parametrize("name", CONV_BIASES)
def test_constant_added_to_a_convolution(name: str, rng: np.random.Generator) -> None:
    b_shape, layers = CONV_BIASES[name]
    constants = {"w": weights(rng, 3, 1, 2, 3), "b": weights(rng, *b_shape)}
    built = model([node("Conv", "x w", "c"), node("Add", "c b", "y")], constants, ["N", 1, 5, 4])
    network = load(built)
    assert kinds(network) == layers and known_layers(network)[1].has_bias == (layers == "Conv")
    agree(network, built, rng)


# --- BatchNormalization -----------------------------------------------------------------------------------


def test_batch_normalisation_after_gemm_by_hand(rng: np.random.Generator) -> None:
    constants = {"w": weights(rng, 4, 3), "b": weights(rng, 3), **statistics(rng, 3)}
    nodes = [node("Gemm", "x w b", "g"), node("BatchNormalization", f"g {BN}", "y", epsilon=0.5)]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense" and network.layers[1].name == "g_node"
    assert network.notes == ("y_node: folded into layer 'g_node', so radii describe the folded weights.",)
    scale, offset, mean, variance = (constants[name] for name in BN.split())
    x = weights(rng, 5, 4)
    wanted = (x @ constants["w"] + constants["b"] - mean) / np.sqrt(variance + 0.5) * scale + offset
    np.testing.assert_allclose(network.evaluate(x), wanted, rtol=0, atol=1e-12)
    agree(network, built, rng)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("shape", "w_shape"), [((2, 5, 4), (3, 2, 2, 3)), ((2, 5), (3, 2, 2))])
def test_batch_normalisation_is_folded_into_a_convolution(
    shape: tuple[int, ...], w_shape: tuple[int, ...], with_bias: bool, rng: np.random.Generator
) -> None:
    constants = {"w": weights(rng, *w_shape), **statistics(rng, 3)} | ({"b": weights(rng, 3)} if with_bias else {})
    first = node("Conv", "x w b" if with_bias else "x w", "c", pads=[1, 0] * len(shape[1:]))
    built = model([first, node("BatchNormalization", f"c {BN}", "y")], constants, ["N", *shape])
    network = load(built)
    assert kinds(network) == "Conv" and known_layers(network)[1].has_bias and len(network.notes) == 1
    agree(network, built, rng)


def test_batch_normalisation_of_a_reshaped_dense_layer(rng: np.random.Generator) -> None:
    """Three channels with two positions each: every statistic applies to two rows of the weight."""
    constants = {"w": weights(rng, 4, 6), "s": np.array([-1, 3, 2]), **statistics(rng, 3)}
    nodes = [node("MatMul", "x w", "m"), node("Reshape", "m s", "r"), node("BatchNormalization", f"r {BN}", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense"
    agree(network, built, rng)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 4)])
def test_batch_normalisation_alone_is_a_depthwise_layer(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    built = model([node("BatchNormalization", f"x {BN}", "y")], statistics(rng, 3), ["N", *shape])
    network = load(built)
    layer = known_layers(network)[1]
    assert kinds(network) == "Conv" and layer.groups == 3 and layer.quantised and layer.weight.shape == (3, 1, 1, 1)
    assert network.notes == () and layer.shape == shape and prod(layer.out_shape) == prod(shape)
    assert len(shape) < 3 or layer.out_shape == shape
    agree(network, built, rng)


def test_batch_normalisation_of_a_value_that_others_read_stands_alone(rng: np.random.Generator) -> None:
    constants = {"w": weights(rng, 4, 3), **statistics(rng, 3)}
    nodes = [node("MatMul", "x w", "m"), node("BatchNormalization", f"m {BN}", "n"), node("Add", "m n", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense Conv Add"
    agree(network, built, rng)


def test_batch_normalisation_of_an_image_that_others_read_stands_alone(rng: np.random.Generator) -> None:
    constants = {"w": weights(rng, 3, 1, 2, 2), **statistics(rng, 3)}
    nodes = [node("Conv", "x w", "m"), node("BatchNormalization", f"m {BN}", "n"), node("Add", "m n", "y")]
    network = load(built := model(nodes, constants, ["N", 1, 4, 3]))
    assert kinds(network) == "Conv Conv Add"
    agree(network, built, rng)


def test_a_constant_added_to_average_pooling_is_exact(rng: np.random.Generator) -> None:
    nodes = [node("AveragePool", "x", "p", kernel_shape=[2, 3]), node("Add", "p b", "y")]
    network = load(built := model(nodes, {"b": weights(rng, 3, 1, 1)}, ["N", 3, 4, 5]))
    assert kinds(network) == "Conv Scale" and network.weighted == ()
    agree(network, built, rng)


def test_batch_normalisation_is_not_folded_into_average_pooling(rng: np.random.Generator) -> None:
    nodes = [node("AveragePool", "x", "p", kernel_shape=[2, 3]), node("BatchNormalization", f"p {BN}", "y")]
    network = load(built := model(nodes, statistics(rng, 3), ["N", 3, 4, 5]))
    assert kinds(network) == "Conv Conv" and [la.quantised for la in known_layers(network)[1:]] == [False, True]
    agree(network, built, rng)


# --- pooling ----------------------------------------------------------------------------------------------

# Name: (channels and sizes, kernel, attributes, layers read at the newest opset)
POOLS: dict[str, tuple[Any, ...]] = {
    "1-d": ((2, 7), [3], {"strides": [2]}, "Conv"),
    "2-d": ((2, 5, 6), [2, 3], {"strides": [2, 1]}, "Conv"),
    "pads, not counted": ((2, 4, 5), [2, 3], {"pads": [1, 0, 0, 2]}, "Conv Scale"),
    "pads, counted": ((2, 4, 5), [2, 3], {"pads": [1, 0, 0, 2], "count_include_pad": 1}, "Conv"),
    "SAME_UPPER": ((1, 4, 5), [2, 2], {"auto_pad": "SAME_UPPER"}, "Conv Scale"),
    "SAME_LOWER": ((1, 4, 5), [2, 2], {"auto_pad": "SAME_LOWER", "count_include_pad": 1}, "Conv"),
    "VALID": ((1, 4, 5), [2, 2], {"auto_pad": "VALID", "strides": [2, 2]}, "Conv"),
    "ceil_mode": ((1, 6, 5), [3, 2], {"strides": [2, 2], "ceil_mode": 1}, "Conv Scale"),
    "ceil_mode, even": ((1, 5, 4), [3, 2], {"strides": [2, 2], "ceil_mode": 1}, "Conv"),
    "ceil_mode, pads": ((1, 6, 5), [3, 2], {"strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 0]}, "Conv Scale"),
    "ceil_mode, counted": (
        (2, 6, 5),
        [3, 2],
        {"strides": [2, 2], "ceil_mode": 1, "pads": [0, 1, 1, 1], "count_include_pad": 1},
        "Conv",
    ),
    "ceil_mode, counted, window beyond the pads": (
        (1, 7),
        [3],
        {"strides": [3], "ceil_mode": 1, "pads": [1, 0], "count_include_pad": 1},
        "Conv Scale",
    ),
    "dilations": ((1, 6, 7), [2, 3], {"dilations": [3, 2], "pads": [1, 0, 0, 1]}, "Conv Scale"),
}


SINCE = {"dilations": 19, "ceil_mode": 10}
POOLS_BY_OPSET = [
    (name, opset)
    for name, opset in product(POOLS, [8, 10, 17, NEWEST_OPSET])
    if all(opset >= SINCE.get(attribute, 0) for attribute in POOLS[name][2])
]


@pytest.mark.parametrize(("name", "opset"), POOLS_BY_OPSET)
def test_average_pool(name: str, opset: int, rng: np.random.Generator) -> None:
    shape, kernel, attributes, layers = POOLS[name]
    built = model([node("AveragePool", "x", "y", kernel_shape=kernel, **attributes)], {}, ["N", *shape], opset)
    network = load(built)
    assert kinds(network) == layers and not known_layers(network)[1].quantised and not network.shares_weights
    agree(network, built, rng)


def test_average_pool_by_hand() -> None:
    attributes = {"kernel_shape": [2], "pads": [1, 1], "strides": [2]}
    x = np.array([[[2.0, 4.0, 10.0, 6.0]]])
    network = load(model([node("AveragePool", "x", "y", **attributes)], {}, ["N", 1, 4]))
    np.testing.assert_allclose(network.evaluate(x), [[2.0, 7.0, 6.0]], rtol=0, atol=1e-15)
    network = load(model([node("AveragePool", "x", "y", count_include_pad=1, **attributes)], {}, ["N", 1, 4]))
    np.testing.assert_allclose(network.evaluate(x), [[1.0, 7.0, 3.0]], rtol=0, atol=1e-15)


# Name: (opset, channels and sizes, axes or None, attributes, shape of the result or None if it is refused)
MEANS: dict[str, tuple[Any, ...]] = {
    "PyTorch's adaptive pooling": (18, (3, 2, 4), [-1, -2], {"keepdims": 1, "noop_with_empty_axes": 0}, (3, 1, 1)),
    "without the axes": (18, (3, 2, 4), [2, 3], {"keepdims": 0}, (3,)),
    "axes as an attribute": (17, (3, 2, 4), [2, 3], {"keepdims": 0}, (3,)),
    "oldest opset": (8, (3, 2, 4), [3, 2], {}, (3, 1, 1)),
    "1-d": (18, (3, 5), [2], {"keepdims": 0}, (3,)),
    "3-d": (18, (3, 2, 3, 2), [2, -1, 3], {"keepdims": 0}, (3,)),
    "an axis of one left out": (18, (3, 1, 4), [3], {"keepdims": 0}, (3, 1)),
    "one channel": (18, (1, 3, 4), [2, 3], {"keepdims": 0}, (1,)),
    "no axes, no operation": (18, (3, 2, 4), [], {"noop_with_empty_axes": 1}, (3, 2, 4)),
    "no axes, all of them": (18, (3, 2, 4), [], {}, None),
    "absent axes": (18, (3, 2, 4), None, {}, None),
    "batch too": (18, (3, 2, 4), [0, 2, 3], {}, None),
    "channels": (18, (3, 2, 4), [1], {}, (1, 2, 4)),
    "channels last": (18, (2, 4, 3), [1, 2], {}, (1, 1, 3)),
    "one axis of two": (18, (3, 2, 4), [3], {}, (3, 2, 1)),
    "an axis in the middle": (17, (3, 2, 4), [-2], {"keepdims": 0}, (3, 4)),
    "no image": (18, (4,), [1], {}, (1,)),
}


MOVED = ("channels", "channels last", "an axis in the middle")


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum"])
@pytest.mark.parametrize("name", MEANS)
def test_a_mean_or_sum_over_axes(name: str, op: str, rng: np.random.Generator) -> None:
    opset, sizes, axes, attributes, shape = MEANS[name]
    constants, inputs = {"c": weights(rng, *sizes)}, "m"
    if axes is not None and opset >= (18 if op == "ReduceMean" else 13):
        constants["axes"], inputs = np.array(axes, dtype=np.int64), "m axes"
    elif axes is not None:
        attributes = attributes | {"axes": axes}
    built = model([node("Mul", "x c", "m"), node(op, inputs, "y", **attributes)], constants, ["N", *sizes], opset)
    if shape is None:
        with pytest.raises(UnsupportedModel, match=r"over axes .* the batch axis among them"):
            load(built)
        return
    network = load(built)
    made = "Scale" if shape == sizes else "Scale Gather Conv" if name in MOVED else "Scale Conv"
    assert kinds(network) == made and network.weighted == ()
    agree(network, built, rng)
    built.graph.node.append(node("Mul", "y d", "z"))  # whose shape shows that of y
    built.graph.initializer.append(numpy_helper.from_array(np.asarray(weights(rng, *shape), dtype=np.float32), "d"))
    built.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None] * (1 + len(shape))))
    network = load(built)
    assert network.layers[-1].shape == shape
    agree(network, built, rng)


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4), (3, 2, 3, 2)])
def test_global_average_pool(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    network = load(built := model([node("GlobalAveragePool", "x", "y")], {}, ["N", *shape]))
    assert kinds(network) == "Conv" and not known_layers(network)[1].quantised
    x = rng.normal(size=(2, *shape))
    np.testing.assert_allclose(network.evaluate(x), x.reshape(2, 3, -1).mean(2), rtol=0, atol=1e-14)
    agree(network, built, rng)
