"""Generated models and their comparison with onnxruntime, which must be able to fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from qverify.layers import Dense
from qverify.network import Network
from qverify.onnx.reader import load
from tests.support.onnx_models import agree, kinds, model, node, run, weights


def test_run_gives_what_the_reference_implementation_of_onnx_gives(rng: np.random.Generator) -> None:
    built = model([node("MatMul", "x W", "h"), node("Tanh", "h", "y")], {"W": weights(rng, 4, 3)}, ["N", 4])
    x = rng.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(run(built, x), ReferenceEvaluator(built).run(None, {"x": x})[0], atol=1e-6)  # type: ignore[index]


def test_weights_are_exact_in_float32(rng: np.random.Generator) -> None:
    values = weights(rng, 50, 40)
    assert (values == values.astype(np.float32)).all() and values.all() and values.min() < 0 < values.max()


def test_a_network_that_differs_does_not_agree(rng: np.random.Generator) -> None:
    constants = {"W": weights(rng, 3, 4), "b": weights(rng, 3)}
    built = model([node("Gemm", "x W b", "y", transB=1)], constants, ["N", 4])
    network = load(built)
    agree(network, built, rng)
    assert kinds(network) == "Dense"
    layer = network.layers[1]
    assert isinstance(layer, Dense)
    other = Network((network.layers[0], replace(layer, bias=layer.bias + np.array([0.0, 1e-4, 0.0]))))
    with pytest.raises(AssertionError):
        agree(other, built, rng)
