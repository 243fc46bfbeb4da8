"""What onnxruntime's quantiser does beyond one grid a layer: averages, symmetric integers, constants of Mul and Add."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization.quant_utils import compute_scale_zp

import qverify
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.ranges import calibrate
from qverify.family.steps import Quantiser
from tests.support.toolchain import Form, dense, grid, model, prepared, quantised

ONNXRUNTIME = Quantiser(8, "tensor", "nearest", points="onnxruntime")


def pooled(rng: np.random.Generator) -> Any:
    """A Conv, a BatchNormalization, a Relu, an average whose range is far smaller, and a Gemm."""
    window: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "W"], ["z"], name="z", kernel_shape=[1, 1]),
        helper.make_node("BatchNormalization", ["z", "scale", "offset", "mean", "variance"], ["n"], name="n"),
        helper.make_node("Relu", ["n"], ["r"], name="r"),
        helper.make_node("AveragePool", ["r"], ["p"], name="p", **window),
        helper.make_node("Flatten", ["p"], ["f"], name="f"),
        helper.make_node("Gemm", ["f", "V", "b"], ["y"], name="y", transB=1),
    ]
    norms = {"scale": np.ones(2), "offset": np.zeros(2), "mean": np.zeros(2), "variance": np.ones(2)}
    constants = {"W": np.array([1.0, -1.0]).reshape(2, 1, 1, 1), **norms, "V": rng.normal(size=(3, 8)), "b": np.ones(3)}
    return model(nodes, constants, (1, 4, 4), 3)


@pytest.mark.parametrize("form", [Form(channel=False), Form("QOperator", channel=False)], ids=str)
def test_an_average_has_the_grid_of_what_it_reads_or_its_own(form: Form, rng: np.random.Generator) -> None:
    """QDQ files have the first, those of integer operators the second; the family holds both."""
    source, x = pooled(rng), rng.normal(size=(20, 1, 4, 4)).astype(np.float32)
    network = qverify.load(source)
    family = Family.of(network, Radii.of(ONNXRUNTIME, network, x.astype(np.float64)))
    ((index, point),) = ((i, p) for i, p in family.points.items() if family.network.layers[i].name.startswith("p"))
    scale, low, high = grid(quantised(source, x, form), "r" if form.format == "QDQ" else "p", form)
    assert scale / 2 <= point.radius[0] and point.dead[0] <= scale / 2
    assert point.low[0][0] <= low <= point.low[1][0] and point.high[0][0] <= high <= point.high[1][0]
    tflite = Radii.of(Quantiser(8, "tensor", "nearest", points="tflite"), network, x.astype(np.float64))
    assert float(Family.of(network, tflite).points[index].radius[0]) == float(point.radius[0])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("ends", [(-1.5, 0.5), (0.0, 2.0), (-3.0, 0.0), (-0.25, 0.75)])
def test_symmetric_integers_reach_one_step_further_down(bits: int, ends: tuple[float, float]) -> None:
    """Signed with 127 steps on either side, -128 a number too, or unsigned with the zero point 128."""
    quantiser = Quantiser(bits, "tensor", "nearest", activations="symmetric")
    low, high = quantiser.ends(*ends)
    half = 2 ** (bits - 1)
    for least, most, narrow in ((-half, half - 1, -half + 1), (0, 2 * half - 1, 0)):
        whole = [np.array(n, dtype=np.int64) for n in (narrow, most)]
        zero, scale = compute_scale_zp(*(np.float32(end) for end in ends), *whole, symmetric=True)
        assert low[0] <= (least - int(zero)) * float(scale) <= low[1]
        assert high[0] <= (most - int(zero)) * float(scale) <= high[1]
        point = quantiser.point(*ends)
        assert float(point.dead) <= float(scale) / 2 <= point.radius  # what is past half a step becomes one


def with_constant(op: str, constant: Any) -> Any:
    built = dense([(np.eye(3), np.zeros(3))])
    built.graph.node[0].input[0] = "scaled"
    built.graph.node.insert(0, helper.make_node(op, ["x", "c"], ["scaled"], name="scaling"))
    built.graph.initializer.append(numpy_helper.from_array(np.asarray(constant, np.float32), "c"))
    return built


@pytest.mark.parametrize(("op", "constant"), [("Mul", [0.9, 0.8, 0.7]), ("Add", [0.1, 0.2, 0.3]), ("Mul", [-0.5])])
def test_constants_that_are_rounded_to_8_bits_are_refused(op: str, constant: Any) -> None:
    network, x = qverify.load(with_constant(op, constant)), np.random.default_rng(0).random((9, 3))
    with pytest.raises(RadiiError, match=r"'scaling' computes with constants that onnxruntime rounds"):
        Radii.of(ONNXRUNTIME, network, x)
    Radii.of(Quantiser(8, "tensor"), network, x)


@pytest.mark.parametrize(("op", "constant"), [("Mul", [0.9]), ("Add", [0.1]), ("Add", [-0.1])])
def test_a_single_constant_is_the_end_of_its_range(op: str, constant: Any) -> None:
    source, x = with_constant(op, constant), np.random.default_rng(0).random((9, 3))
    Radii.of(ONNXRUNTIME, qverify.load(source), x)
    for form in (Form(channel=False), Form(channel=False, activation="QInt8", centred=True)):
        file = quantised(source, x.astype(np.float32), form)
        scale, _, _ = grid(file, "c", form)
        assert abs(constant[0] - scale * np.rint(constant[0] / scale)) <= 2.0**-22 * abs(constant[0])


def test_a_bias_that_a_node_adds_is_refused_until_it_is_in_a_gemm() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["m"], name="product"),
        helper.make_node("Add", ["m", "b"], ["y"], name="sum"),
    ]
    source = model(nodes, {"W": np.eye(3), "b": [0.3, 0.1, 0.2]}, (3,), 3)
    x = np.random.default_rng(0).random((9, 3))
    with pytest.raises(RadiiError, match=r"adds the bias of 'product'.*quant_pre_process"):
        Radii.of(ONNXRUNTIME, qverify.load(source), x)
    Radii.of(ONNXRUNTIME, qverify.load(prepared(source)), x)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_ranges_before_a_normalisation_are_those_of_the_calibrator(method: str, rng: np.random.Generator) -> None:
    source, x = pooled(rng), rng.normal(size=(40, 1, 4, 4)).astype(np.float32)
    network = qverify.load(source)
    found = calibrate(network, x.astype(np.float64), network.batchnorms, method).before
    form = Form(channel=False, calibration=method.capitalize())
    scale, _, _ = grid(quantised(source, x, form), "z", form)
    ((low, high),) = found.values()
    assert (high - low) / 255 == pytest.approx(scale, rel=1e-5)
