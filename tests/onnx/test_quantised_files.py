"""Files that onnxruntime.quantization wrote: they compute what onnxruntime computes, with the file's integers."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from qverify.arrays import Array
from qverify.layers import Rounding
from qverify.network import Network
from qverify.onnx.reader import load
from tests.support.toolchain import FORMS, Form, dense, dequantised, model, outputs, quantised

SAMPLES = 200


def _numbers(rng: np.random.Generator, *shape: int) -> Array:
    return np.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1))


def _mlp() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    sizes = [(9, 12), (10, 9), (4, 10)]
    return dense([(2 * _numbers(rng, *size), 0.3 * rng.normal(size=size[0])) for size in sizes])


def _matmul() -> onnx.ModelProto:
    """Products whose biases are added by nodes of their own."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("MatMul", ["x", "W1"], ["m1"], name="fc1"),
        helper.make_node("Add", ["m1", "b1"], ["z1"], name="add1"),
        helper.make_node("Relu", ["z1"], ["r1"], name="relu1"),
        helper.make_node("MatMul", ["r1", "W2"], ["m2"], name="fc2"),
        helper.make_node("Add", ["m2", "b2"], ["y"], name="add2"),
    ]
    constants = {"W1": 2 * _numbers(rng, 10, 8).T.reshape(10, 8), "b1": 0.3 * rng.normal(size=8)}
    return model(nodes, constants | {"W2": _numbers(rng, 8, 3), "b2": 0.3 * rng.normal(size=3)}, (10,), 3)


def _norm(rng: np.random.Generator, name: str, channels: int) -> dict[str, Array]:
    """The parameters of a BatchNormalization."""
    return {
        f"{name}s": rng.uniform(0.5, 1.5, channels),
        f"{name}o": 0.3 * rng.normal(size=channels),
        f"{name}m": 0.3 * rng.normal(size=channels),
        f"{name}v": rng.uniform(0.5, 2.0, channels),
    }


def _conv() -> onnx.ModelProto:
    """Convolution, BatchNormalization, both poolings."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["x", "K1", "k1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "ns", "no", "nm", "nv"], ["n1"], name="norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], name="relu1"),
        helper.make_node("AveragePool", ["r1"], ["p1"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "K2", "k2"], ["c2"], name="conv2", group=2),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "W", "b"], ["y"], name="fc", transB=1),
    ]
    constants = {
        "K1": 2 * _numbers(rng, 4, 2, 3, 3),
        "k1": 0.3 * rng.normal(size=4),
        **_norm(rng, "n", 4),
        "K2": 2 * _numbers(rng, 6, 2, 2, 2),
        "k2": 0.3 * rng.normal(size=6),
        "W": 3 * _numbers(rng, 3, 6),
        "b": 0.3 * rng.normal(size=3),
    }
    return model(nodes, constants, (2, 6, 6), 3)


def _residual() -> onnx.ModelProto:
    """A sum of two branches, one of them the identity."""
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Conv", ["x", "K1", "k1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "K2", "k2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], name="sum"),
        helper.make_node("Relu", ["a"], ["r2"], name="relu2"),
        helper.make_node("Reshape", ["r2", "shape"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "W", "b"], ["y"], name="fc", transB=1),
    ]
    constants = {
        "K1": 2 * _numbers(rng, 3, 2, 3, 3),
        "k1": 0.3 * rng.normal(size=3),
        "K2": 2 * _numbers(rng, 3, 3, 3, 3),
        "k2": 0.3 * rng.normal(size=3),
        "W": 3 * _numbers(rng, 4, 48),
        "b": 0.3 * rng.normal(size=4),
    }
    built = model(nodes, constants, (2, 4, 4), 4)
    built.graph.initializer.append(numpy_helper.from_array(np.array([-1, 48]), "shape"))
    return built


BUILDERS = {"mlp": _mlp, "matmul": _matmul, "conv": _conv, "residual": _residual}
CALIBRATED = [
    replace(FORMS[0], calibration="Entropy"),
    replace(FORMS[1], calibration="Percentile"),
    replace(FORMS[-2], calibration="Percentile", channel=True),
    replace(FORMS[0], prepared=True),
    replace(FORMS[-1], prepared=True),
    replace(FORMS[1], centred=True),
    replace(FORMS[0], reduced=True),
]
QUICK = [(name, form) for name in BUILDERS for form in (FORMS[0], FORMS[5], FORMS[-2])]
ALL = [(name, form) for name in BUILDERS for form in [*FORMS, *CALIBRATED] if (name, form) not in QUICK]


def _samples(file: onnx.ModelProto, count: int, seed: int) -> Array:
    shape = [axis.dim_value for axis in file.graph.input[0].type.tensor_type.shape.dim][1:]
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


@functools.cache
def _file(name: str, form: Form) -> onnx.ModelProto:
    built = BUILDERS[name]()
    return quantised(built, _samples(built, 40, 7), form)


def _agrees(network: Network, file: onnx.ModelProto) -> None:
    """The class in 99 of 100 inputs, and outputs within a few steps; by kernels and node by node."""
    x = _samples(file, SAMPLES, 11)
    ours = network.evaluate(x)
    last = network.layers[network.roundings[-1]]
    assert isinstance(last, Rounding)
    for optimised in (True, False):
        theirs = outputs(file, x, optimised)
        assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.99
        assert np.abs(ours - theirs).max() <= 3.01 * last.step.max()
        assert (np.abs(ours - theirs) > 1.01 * last.step.max()).mean() < 0.02


def _weights_are_the_files(network: Network, file: onnx.ModelProto) -> None:
    """By value: which constant is whose is not asked of names."""
    weighted: list[Any] = [network.layers[i] for i in network.weighted]
    layers = [layer for layer in weighted if layer.grid is not None]
    assert len(layers) >= 2
    found = list(dequantised(file).values())
    for layer in layers:
        fits = [v for v in found if v.ndim >= 2 and v.size == layer.weight.size]
        alike = [v for v in fits if any(_equal(layer.weight, w) for w in (v, v.T))]
        assert alike, layer.name
        if layer.has_bias:
            assert any(np.allclose(layer.bias, v, rtol=1e-6) for v in found if v.shape == layer.bias.shape), layer.name


def _equal(weight: Array, value: Array) -> bool:
    return weight.shape == value.shape and bool((weight == value).all())


@pytest.mark.parametrize(("name", "form"), QUICK, ids=str)
def test_a_file_of_the_quantiser_computes_what_onnxruntime_does(name: str, form: Form) -> None:
    file = _file(name, form)
    network = load(file)
    assert network.roundings and not network.added_biases and not network.batchnorms and not network.oddities
    _agrees(network, file)
    if form.format == "QDQ" or name in ("mlp", "residual"):  # others have matrices of kernels by other rules of names
        _weights_are_the_files(network, file)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), ALL, ids=str)
def test_every_form_of_file_computes_what_onnxruntime_does(name: str, form: Form) -> None:
    test_a_file_of_the_quantiser_computes_what_onnxruntime_does(name, form)


@pytest.mark.parametrize("form", [FORMS[0], FORMS[-2]], ids=str)
@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
def test_a_file_that_onnxruntime_optimised_is_the_same_network(level: str, form: Form, tmp_path: Path) -> None:
    file = _file("conv", form)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 4
    onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = load(tmp_path / "optimised.onnx")
    assert len(optimised.roundings) == len(load(file).roundings)
    x = _samples(file, 50, 12)
    np.testing.assert_allclose(optimised.evaluate(x), load(file).evaluate(x), rtol=0, atol=1e-9)
