"""Several tensors compared, repeated and multiplied, rows under one matrix, images stretched: against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qverify.errors import UnsupportedModel
from qverify.layers import Conv, Dense
from qverify.onnx.reader import load
from tests.support.onnx_models import agree, kinds, model, node, weights

Rng = np.random.Generator


@pytest.mark.parametrize("kind", ["Max", "Min"])
@pytest.mark.parametrize("inputs", ["a b", "a b x", "a c", "a k", "a c k b"])
def test_the_largest_and_smallest_of_tensors(kind: str, inputs: str, rng: Rng) -> None:
    nodes = [
        node("MatMul", "x w", "a"), node("MatMul", "x v", "b"), node("Slice", "a s e i", "c"), node(kind, inputs, "y"),
    ]  # fmt: skip
    ends = {"s": np.array([1]), "e": np.array([2]), "i": np.array([1]), "k": rng.normal(size=4)}
    nodes = [each for each in nodes if each.output[0] in {"y", *inputs.split()} or (each.output[0] == "a")]
    built = model(nodes, {"w": weights(rng, 4, 4), "v": weights(rng, 4, 4), **ends}, ["N", 4])
    network = load(built)
    assert ("MaxPool" in kinds(network)) == (inputs != "a k")
    agree(network, built, rng)


@pytest.mark.parametrize("kind", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize(("axes", "keep"), [([1], 1), ([-1], 0), ([2, 3], 1), ([1, 3], 0)])
def test_the_largest_and_smallest_over_axes(kind: str, axes: list[int], keep: int, rng: Rng) -> None:
    for opset in (13, 18):
        more: dict[str, Any] = {"axes": axes} if opset < 18 else {}
        nodes = [node("Conv", "x w", "a"), node(kind, "a" if opset < 18 else "a n", "y", keepdims=keep, **more)]
        constants = {"w": weights(rng, 3, 2, 2, 2), **({} if opset < 18 else {"n": np.array(axes)})}
        built = model(nodes, constants, ["N", 2, 4, 3], opset)
        agree(load(built), built, rng)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul"])
def test_branches_that_broadcast(kind: str, rng: Rng) -> None:
    nodes = [node("GlobalAveragePool", "x", "m"), node("Conv", "x w", "a"), node(kind, "a m", "y")]
    built = model(nodes, {"w": weights(rng, 2, 2, 1, 1)}, ["N", 2, 3, 4])
    agree(load(built), built, rng)
    turned = model([*nodes[:2], node(kind, "m a", "y")], {"w": weights(rng, 2, 2, 1, 1)}, ["N", 2, 3, 4])
    agree(load(turned), turned, rng)


@pytest.mark.parametrize("shape", [["N", 5, 4], [1, 2, 3, 4]])
@pytest.mark.parametrize("bias", [False, True])
def test_rows_share_one_matrix(shape: list[Any], bias: bool, rng: Rng) -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        *([node("Add", "a b", "c")] if bias else []),
        node("Relu", "c" if bias else "a", "y"),
    ]
    built = model(nodes, {"w": weights(rng, 4, 3), "b": rng.normal(size=3)}, shape)
    network = load(built)
    agree(network, built, rng)
    (layer,) = [layer for layer in network.layers if isinstance(layer, Conv)]
    assert layer.weight.size == 12 and layer.has_bias == bias and "Scale" not in kinds(network)


def test_a_constant_that_differs_from_row_to_row_is_no_bias(rng: Rng) -> None:
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "y")]
    built = model(nodes, {"w": weights(rng, 4, 3), "b": rng.normal(size=(5, 3))}, ["N", 5, 4])
    network = load(built)
    agree(network, built, rng)
    assert "Scale" in kinds(network)


def test_a_bias_behind_a_transpose_to_channels_last(rng: Rng) -> None:
    nodes = [
        node("Conv", "x w", "a"), node("Transpose", "a", "t", perm=[0, 2, 3, 1]), node("Add", "t b", "s"),
        node("Relu", "s", "r"), node("Flatten", "r", "f"), node("MatMul", "f v", "y"),
    ]  # fmt: skip
    constants = {"w": weights(rng, 3, 2, 2, 2), "b": rng.normal(size=3), "v": weights(rng, 18, 2)}
    built = model(nodes, constants, ["N", 2, 4, 3])
    network = load(built)
    agree(network, built, rng)
    conv = next(layer for layer in network.layers if isinstance(layer, Conv))
    assert conv.has_bias and conv.bias == pytest.approx(constants["b"], rel=1e-6) and "Scale" not in kinds(network)


WINDOWS: list[dict[str, Any]] = [
    {},
    {"strides": [2, 2]},
    {"strides": [2, 3], "pads": [1, 0, 2, 1]},
    {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    {"dilations": [2, 1], "strides": [1, 2]},
    {"pads": [3, 2, 2, 3]},
    {"auto_pad": "VALID", "strides": [2, 1]},
    {"group": 2, "strides": [2, 2], "pads": [0, 1, 1, 0]},
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_transposed_convolution(window: dict[str, Any], rng: Rng) -> None:
    groups = window.get("group", 1)
    constants = {"w": weights(rng, 4, 6 // groups, 3, 2), "b": rng.normal(size=6)}
    built = model([node("ConvTranspose", "x w b", "y", **window)], constants, ["N", 4, 5, 6])
    network = load(built)
    agree(network, built, rng)
    (layer,) = [layer for layer in network.layers if isinstance(layer, (Conv, Dense))]
    assert np.sort(layer.weight.ravel()) == pytest.approx(np.sort(constants["w"].ravel()), rel=1e-6)


def test_a_transposed_convolution_over_one_axis(rng: Rng) -> None:
    built = model(
        [node("ConvTranspose", "x w", "y", strides=[3], pads=[1, 2])], {"w": weights(rng, 2, 3, 4)}, ["N", 2, 5]
    )
    agree(load(built), built, rng)


def test_it_is_torchs(rng: Rng) -> None:
    layer = nn.ConvTranspose2d(2, 3, (3, 2), stride=2, padding=1, output_padding=1)
    assert layer.bias is not None
    constants = {"w": layer.weight.detach().numpy(), "b": layer.bias.detach().numpy()}
    more = {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}
    network = load(model([node("ConvTranspose", "x w b", "y", **more)], constants, ["N", 2, 4, 4]))
    x = rng.normal(size=(3, 2, 4, 4)).astype(np.float32)
    wanted = layer(torch.as_tensor(x)).detach().numpy().reshape(3, -1)
    assert network.evaluate(x) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("nodes", "shape", "why"),
    [
        ([node("ConvTranspose", "x w", "y", auto_pad="SAME_UPPER")], ["N", 4, 5, 6], "write pads out"),
        ([node("ConvTranspose", "x w", "y", output_shape=[7, 7])], ["N", 4, 5, 6], "write pads out"),
        ([node("ConvTranspose", "x w", "y", pads=[9, 9, 9, 9])], ["N", 4, 5, 6], "leave nothing"),
        ([node("ConvTranspose", "x w", "y")], ["N", 3, 5, 6], "does not fit 3 channels"),
        ([node("ReduceMax", "x", "y", axes=[0])], ["N", 4], "the batch axis among them"),
        ([node("Max", "x k", "z"), node("Reshape", "z r", "t"), node("Max", "z t", "y")], ["N", 4], "which do not fit"),
    ],
)
def test_what_is_refused(nodes: list[Any], shape: list[Any], why: str, rng: Rng) -> None:
    constants = {"w": weights(rng, 4, 6, 3, 2), "k": rng.normal(size=4), "r": np.array([1, 2, 2])}
    with pytest.raises(UnsupportedModel) as error:
        load(model(nodes, constants, shape, 13))
    assert why in str(error.value)
