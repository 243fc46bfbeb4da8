"""Convolutions and pools over three axes against onnxruntime; weights are shared by all places as the kernel says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qverify.errors import UnsupportedModel
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Conv, MaxPool
from qverify.network import Network
from qverify.onnx import load, to_onnx
from tests.support.commands import answer
from tests.support.onnx_models import BN, agree, model, node, run, statistics, weights

Rng = np.random.Generator
SHAPE: list[int | str] = ["N", 4, 5, 4, 6]

CONVS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((3, 4, 2, 3, 2), {}),
    "strides and pads": ((3, 4, 3, 2, 3), {"strides": [2, 1, 2], "pads": [1, 0, 2, 0, 1, 1]}),
    "dilations": ((2, 4, 2, 2, 2), {"dilations": [2, 3, 4]}),
    "groups": ((6, 2, 2, 2, 2), {"group": 2, "strides": [1, 2, 3]}),
    "depthwise": ((4, 1, 3, 1, 2), {"group": 4, "pads": [1, 0, 0, 1, 0, 1]}),
    "upper": ((3, 4, 2, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2, 1]}),
    "lower": ((3, 4, 2, 3, 2), {"auto_pad": "SAME_LOWER"}),
    "a point": ((3, 4, 1, 1, 1), {}),
    "flat": ((3, 4, 1, 1, 3), {}),
    "all of it": ((3, 4, 5, 4, 6), {}),
}


@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name: str, rng: Rng) -> None:
    shape, attributes = CONVS[name]
    built = model(
        [node("Conv", "x w b", "y", **attributes)], {"w": weights(rng, *shape), "b": weights(rng, shape[0])}, SHAPE
    )
    network = load(built)
    agree(network, built, rng)
    (layer,) = (la for la in network.layers if isinstance(la, Conv))
    assert layer.weight.size == np.prod(shape) and layer.quantised


POOLS: list[tuple[str, dict[str, Any]]] = [
    ("MaxPool", {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
    ("MaxPool", {"kernel_shape": [2, 3, 2], "pads": [1, 1, 0, 0, 1, 1], "strides": [1, 2, 2]}),
    ("MaxPool", {"kernel_shape": [3, 2, 4], "strides": [2, 2, 3], "ceil_mode": 1}),
    ("MaxPool", {"kernel_shape": [2, 2, 3], "auto_pad": "SAME_UPPER"}),
    ("AveragePool", {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
    ("AveragePool", {"kernel_shape": [2, 3, 2], "pads": [1, 1, 0, 0, 1, 1], "strides": [1, 2, 2]}),
    ("AveragePool", {"kernel_shape": [2, 3, 2], "pads": [1, 1, 1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", {"kernel_shape": [3, 2, 4], "strides": [2, 2, 3], "ceil_mode": 1}),
    ("AveragePool", {"kernel_shape": [2, 2, 3], "auto_pad": "SAME_LOWER"}),
    ("GlobalAveragePool", {}),
    ("GlobalMaxPool", {}),
]


@pytest.mark.parametrize(("kind", "attributes"), POOLS)
def test_pools(kind: str, attributes: dict[str, Any], rng: Rng) -> None:
    built = model([node(kind, "x", "y", **attributes)], {}, SHAPE, opset=19)
    agree(load(built), built, rng)


def test_a_network(rng: Rng) -> None:
    nodes = [
        node("Conv", "x w", "p", pads=[1] * 6),
        node("BatchNormalization", f"p {BN}", "q"),
        node("Relu", "q", "r"),
        node("MaxPool", "r", "s", kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        node("Conv", "s v", "t"),
        node("Add", "t c", "u"),
        node("Relu", "u", "z"),
        node("Flatten", "z", "f"),
        node("Gemm", "f g h", "y", transB=1),
    ]
    constants = {"w": weights(rng, 3, 1, 3, 3, 3), **statistics(rng, 3), "v": weights(rng, 2, 3, 2, 2, 2)}
    constants |= {"c": weights(rng, 2, 1, 1, 1), "g": weights(rng, 3, 4), "h": weights(rng, 3)}
    built = model(nodes, constants, ["N", 1, 4, 4, 6])
    network = load(built)
    agree(network, built, rng)
    convs = [la for la in network.layers if isinstance(la, Conv)]
    assert [la.weight.shape for la in convs] == [(3, 9, 1, 3), (2, 12, 1, 2)]
    assert all(la.has_bias for la in convs) and network.shares_weights  # BN and the constant are inside
    assert sum(isinstance(la, MaxPool) for la in network.layers) == 2
    again = to_onnx(network)
    x = rng.normal(size=(3, network.input_size))
    assert abs(run(again, x.reshape(3, 1, 4, 4, 6)) - network.evaluate(x)).max() < 1e-3
    double = run(to_onnx(network, "float64"), x.reshape(3, 1, 4, 4, 6))
    assert abs(double - network.evaluate(x)).max() < 1e-10


def by_hand(weight: Any, bias: Any, x: Any) -> Any:
    """A convolution (c_out, c_in, k, k, k) of an image (c_in, d, h, w), place by place."""
    kernel = weight.shape[2:]
    size = [n - k + 1 for n, k in zip(x.shape[1:], kernel, strict=True)]
    out = np.zeros((len(weight), *size))
    for place in np.ndindex(*size):
        seen = x[(slice(None), *(slice(p, p + k) for p, k in zip(place, kernel, strict=True)))]
        out[(slice(None), *place)] = (weight * seen).sum(axis=(1, 2, 3, 4)) + bias
    return out


def test_members_are_convolutions_of_one_kernel(rng: Rng) -> None:
    """A changed kernel entry changes every place alike: members by hand, with the same kernel as numbers."""
    weight, bias = weights(rng, 2, 2, 2, 2, 3), weights(rng, 2)
    built = model([node("Conv", "x w b", "y")], {"w": weight, "b": bias}, ["N", 2, 3, 3, 4])
    network = load(built)
    index = network.weighted[0]
    layer: Any = network.layers[index]
    family = Family.of(network, Radii(weight=0.1, bias=0.05))
    assert family.weight[index].shape == layer.weight.shape and family.shares_weights
    moved = weight + 0.1 * rng.choice([-1.0, 1.0], weight.shape)
    member: Network = network.with_layers({index: replace(layer, weight=moved.reshape(layer.weight.shape))})
    x = rng.normal(size=(2, 3, 3, 4))
    found = member.evaluate(x[None])[0]
    assert abs(found - by_hand(moved, bias, x).ravel()).max() < 1e-12


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        ([node("Conv", "x w", "y")], {"w": np.ones((2, 3, 2, 2, 2))}, "does not fit 4 channels"),
        ([node("Conv", "x w", "y")], {"w": np.ones((2, 4, 9, 2, 2))}, "does not fit into the padded image"),
        ([node("MaxPool", "x", "y", kernel_shape=[2, 2, 2], dilations=[2, 1, 1])], {}, "has dilations"),
        ([node("ConvTranspose", "x w", "y")], {"w": np.ones((4, 2, 2, 2, 2))}, "supported are 1-d and 2-d"),
        (
            [node("Reshape", "x s", "z"), node("Conv", "z w", "y")],
            {"s": np.array([1, 4, 5, 4, 3, 2]), "w": np.ones((2, 4, 1, 1, 1, 1))},
            "supported is (1, channels, length)",
        ),
    ],
)
def test_refusals(nodes: list[onnx.NodeProto], constants: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        load(model(nodes, constants, SHAPE))
    assert words in str(caught.value)


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_quantised_files(form: str, rng: Rng, tmp_path: Path) -> None:
    """Files of onnxruntime load, and are covered by the family of the network that they were made of."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    nodes = [node("Conv", "x w b", "p", strides=[1, 2, 1], pads=[1, 0, 0, 0, 0, 1]), node("Relu", "p", "q")]
    nodes += [
        node("MaxPool", "q", "r", kernel_shape=[2, 1, 2]),
        node("Flatten", "r", "f"),
        node("Gemm", "f g h", "y", transB=1),
    ]
    constants = {"w": weights(rng, 3, 2, 2, 2, 2), "b": weights(rng, 3)}
    built = model(nodes, constants | {"g": weights(rng, 3, 36), "h": weights(rng, 3)}, ["N", 2, 3, 4, 4])
    onnx.save(built, tmp_path / "m.onnx")
    x = rng.normal(size=(20, 2, 3, 4, 4)).astype(np.float32)
    fed = iter([{"x": one[None]} for one in x])
    reader = type("Reader", (quantization.CalibrationDataReader,), {"get_next": lambda self: next(fed, None)})()
    quantization.quantize_static(
        str(tmp_path / "m.onnx"),
        str(tmp_path / "q.onnx"),
        reader,
        quant_format=quantization.QuantFormat[form],
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )
    np.savez(tmp_path / "d.npz", x=x.astype(float), y=np.zeros(20, int))
    words = ["--bits", 8, "--scheme", "channel", "--rounding", "nearest", "--points", "onnxruntime"]
    found = answer("covers", tmp_path / "m.onnx", tmp_path / "q.onnx", "--data", tmp_path / "d.npz", *words)
    assert found["covered"], [part for part in found["parts"] if not part["covered"]]
