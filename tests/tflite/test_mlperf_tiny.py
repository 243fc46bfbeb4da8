"""The files of MLPerf Tiny on their official samples, against LiteRT's reference kernels."""

from __future__ import annotations

import numpy as np
import pytest

import qverify
from qverify.layers import Conv, Dense, Rounding
from tests.support.tflite_models import LiteRT, mlperf

SAMPLES = 100
INT8 = {
    "kws_ref_model.tflite": ("kws01_1000.npz", 4, 0.98),
    "pretrainedResnet_quant.tflite": ("ic_1000_0_255.npz", 8, 0.8),
    "ad01_int8.tflite": ("ad_196.npz", 1, 1.0),
}
"""Data, by how many steps of the last layer roundings on the way may move an output, and the part moved by up to 2."""
FLOAT = {"pretrainedResnet.tflite": "ic_1000_0_255.npz", "ad01_fp32.tflite": "ad_196.npz"}


@pytest.mark.parametrize("name", INT8)
def test_integer_files(name: str) -> None:
    data, steps, near = INT8[name]
    path = mlperf(name)
    samples = np.load(mlperf(data))["x_test"][:SAMPLES]
    network, runtime = qverify.load(path), LiteRT(path.read_bytes())
    index = runtime.logits()
    theirs, ours = runtime.run(samples, index), network.evaluate(samples)
    assert (theirs.argmax(axis=1) == ours.argmax(axis=1)).mean() >= 0.95
    difference = abs(theirs - ours) / runtime.step(index)
    assert difference.max() <= steps + 0.01
    assert (difference <= 2.01).mean() >= near
    assert isinstance(network.layers[1], Rounding) and isinstance(network.layers[-1], Rounding)
    weighted = [network.layers[i] for i in network.weighted]
    assert all(isinstance(layer, (Dense, Conv)) and layer.grid is not None for layer in weighted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kws_ref_model.tflite", "pretrainedResnet_quant.tflite"])
def test_integer_files_in_kernels_that_round_as_the_network_does(name: str) -> None:
    """XNNPACK multiplies by a float and rounds ties to even; the reference kernels round twice. A class may be off only
    by sums halfway between two steps. The output after the SOFTMAX may have ties: any of them is right."""
    path = mlperf(name)
    samples = np.load(mlperf(INT8[name][0]))["x_test"][:SAMPLES]
    runtime = LiteRT(path.read_bytes(), reference=False)
    theirs = runtime.run(samples, runtime.interpreter.get_output_details()[0]["index"])
    ours = qverify.load(path).evaluate(samples).argmax(axis=1)
    assert (theirs[np.arange(SAMPLES), ours] == theirs.max(axis=1)).mean() >= 0.98


@pytest.mark.parametrize("name", FLOAT)
def test_float_files(name: str) -> None:
    path = mlperf(name)
    samples = np.load(mlperf(FLOAT[name]))["x_test"][:20]
    network, runtime = qverify.load(path), LiteRT(path.read_bytes())
    theirs, ours = runtime.run(samples, runtime.logits()), network.evaluate(samples)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-5 * abs(theirs).max())
    assert not network.roundings


def test_a_file_of_floats_with_integer_weights() -> None:
    """Read as the network before its kernels round activations, which moves outputs by a few per cent at most."""
    path = mlperf("kws_ref_model_float32.tflite")
    samples = np.load(mlperf("kws01_1000.npz"))["x_test"][:SAMPLES]
    network, runtime = qverify.load(path), LiteRT(path.read_bytes())
    theirs, ours = runtime.run(samples, runtime.logits()), network.evaluate(samples)
    assert (theirs.argmax(axis=1) == ours.argmax(axis=1)).mean() >= 0.98
    assert 1e-4 < abs(theirs - ours).max() / abs(theirs).max() < 0.1
    assert sum("round the activations as they go" in note for note in network.notes) == 1


def test_names_are_short_and_say_where_they_are_from() -> None:
    names = [layer.name for layer in qverify.load(mlperf("kws_ref_model.tflite")).layers]
    assert names[:4] == [
        "input_1",
        "input_1/rounded",
        "functional_1/activation/Relu",
        "functional_1/activation/Relu/rounded",
    ]
    assert names[-2:] == ["functional_1/dense/BiasAdd", "functional_1/dense/BiasAdd/rounded"]
