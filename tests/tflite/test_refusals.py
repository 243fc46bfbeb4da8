"""What is damaged, contradicts itself or is not supported: a sentence each, and never a traceback."""

from __future__ import annotations

import contextlib
import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qverify
from qverify.errors import ModelError, PackageMissing, UnsupportedModel
from qverify.tflite import load
from tests.support.refusals import refusal, sentence
from tests.support.tflite_models import RELU6, RELU_N1, WINDOW, Graph, stored


def net(kind: str = "INT8", **options: Any) -> Graph:
    """A convolution, a RESHAPE, a dense layer and a SOFTMAX, with weights that count up."""
    graph = Graph(kind, (1, 4, 4, 2), 0.02, 3)
    weight = graph.constant("INT8", np.arange(54).reshape(3, 3, 3, 2) - 20, [0.01, 0.02, 0.03])
    bias = graph.constant("INT32", [10, -20, 30], np.float32(0.02) * np.asarray([0.01, 0.02, 0.03]))
    out = graph.tensor(kind, (1, 4, 4, 3), 0.1, -7)
    graph.add("CONV_2D", [0, weight, bias], out, **{**WINDOW, "dilationHFactor": 1, "dilationWFactor": 1, **options})
    flat = graph.tensor(kind, (1, 48), 0.1, -7)
    graph.add("RESHAPE", [out, graph.constant("INT32", [1, 48])], flat)
    dense = graph.constant("INT8", np.arange(240).reshape(5, 48) % 100 - 50, 0.01)
    logits = graph.tensor(kind, (1, 5), 0.3, 0)
    graph.add("FULLY_CONNECTED", [flat, dense, -1], logits)
    graph.add("SOFTMAX", [logits], graph.tensor(kind, (1, 5), 1 / 256, -128), beta=1.0)
    return graph


CONTENT = net().content()


def refused(content: bytes, folder: Path, kind: type[ModelError] = ModelError) -> str:
    with pytest.raises(kind) as caught:
        load(stored(content, folder))
    return str(caught.value) if isinstance(caught.value, UnsupportedModel) else sentence(caught)


def test_the_file_itself_is_read(tmp_path: Path) -> None:
    assert len(load(stored(CONTENT, tmp_path)).layers) == 6


# --- damage ---


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(CONTENT)))
def test_a_file_that_was_cut_short(tmp_path: Path, length: int) -> None:
    if length < len(CONTENT):
        refused(CONTENT[:length], tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.integers(8, len(CONTENT) - 1), st.integers(0, 255), min_size=1, max_size=4))
def test_bytes_that_were_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[int, int]) -> None:
    """Without LiteRT, whose process takes a while to start."""
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    content = bytearray(CONTENT)
    for place, value in changes.items():
        content[place] = value
    with contextlib.suppress(ModelError):
        load(stored(bytes(content), tmp_path))


def test_something_else(tmp_path: Path) -> None:
    assert "is no TFLite file" in refused(b"PK\3\4" + bytes(40), tmp_path)
    assert "is no TFLite file" in refused(b"", tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "none.tflite")
    assert "is damaged or was cut short" in refused(gzip.compress(CONTENT)[:-9], tmp_path)
    for wrong in (None, 3, b"x"):
        with pytest.raises(ModelError):
            load(wrong)  # type: ignore[arg-type]


def test_compressed_by_gzip(tmp_path: Path) -> None:
    path = stored(gzip.compress(CONTENT), tmp_path, "model.tflite.gz")
    x = np.ones((1, 2, 4, 4))
    np.testing.assert_array_equal(load(path).evaluate(x), qverify.load(stored(CONTENT, tmp_path)).evaluate(x))
    np.testing.assert_array_equal(load(path).evaluate(x), qverify.load(path).evaluate(x))


# --- numbers that contradict themselves ---


def quantisation(index: int, **fields: Any) -> bytes:
    graph = net()
    for name, value in fields.items():
        setattr(graph.graph.tensors[index].quantization, name, value)
    return graph.content()


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e-40])
@pytest.mark.parametrize("index", [0, 1, 3])
def test_scales_that_are_no_positive_normal_numbers(tmp_path: Path, index: int, scale: float) -> None:
    scales = np.asarray([0.01, scale, 0.03] if index == 1 else [scale], np.float32)
    with np.errstate(all="ignore"):
        content = quantisation(index, scale=scales)
    assert "scales are positive, finite and normal numbers" in refused(content, tmp_path)


@pytest.mark.parametrize("zero", [-129, 128, 1 << 40])
def test_zero_points_outside_the_type(tmp_path: Path, zero: int) -> None:
    assert f"has the zero point {zero}, which that type does not have" in refused(
        quantisation(3, zeroPoint=np.asarray([zero])), tmp_path
    )


def test_zero_points_of_weights_and_biases(tmp_path: Path) -> None:
    assert "TFLite has 0 there" in refused(quantisation(1, zeroPoint=np.asarray([0, 1, 0])), tmp_path)
    assert "has the zero point 1" in refused(quantisation(2, zeroPoint=np.asarray([0, 1, 0])), tmp_path)


def test_a_bias_of_another_scale(tmp_path: Path) -> None:
    scale = np.float32(0.02) * np.asarray([0.01, 0.02, 0.03], np.float32)
    load(stored(quantisation(2, scale=scale * np.float32(1 + 1e-6)), tmp_path))
    message = refused(quantisation(2, scale=scale * np.asarray([1, 1.0001, 1], np.float32)), tmp_path)
    assert "tensor 't2' has another scale than input times weights of 't3'" in message


def test_numbers_of_scales(tmp_path: Path) -> None:
    assert "2 scales, which do not fit its shape" in refused(
        quantisation(1, scale=np.ones(2, np.float32), zeroPoint=np.zeros(2, int)), tmp_path
    )
    assert "3 scales and 2 zero points" in refused(quantisation(1, zeroPoint=np.zeros(2, int)), tmp_path)
    graph = net()
    graph.graph.tensors[3].quantization = None
    assert "has 0 scales; supported is one for a tensor that is computed" in refused(graph.content(), tmp_path)


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    for index, shape in ((3, [1, 4, 4, 4]), (1, [3, 3, 3, 3]), (6, [5, 49]), (4, [1, 47]), (0, [2, 4, 4, 2])):
        graph = net()
        graph.graph.tensors[index].shape = shape
        refused(graph.content(), tmp_path)
    graph = net()
    graph.graph.tensors[0].shape = [1, 1 << 13, 1 << 13, 2]
    assert "supported are up to" in refused(graph.content(), tmp_path)


# --- what is not supported ---


def pooled() -> Graph:
    graph = Graph("INT8", (1, 4, 4, 2))
    window = {**WINDOW, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    graph.add("MAX_POOL_2D", [0], graph.tensor("INT8", (1, 2, 2, 2), 0.07), **window)
    return graph


def with_tensor(change: Callable[[Any], None], index: int = 3) -> Graph:
    graph = net()
    change(graph.graph.tensors[index])
    return graph


def after_softmax() -> Graph:
    graph = net()
    graph.add("RELU", [8], graph.tensor("INT8", (1, 5), 0.1, 0))
    return graph


def reshaped_to_an_image() -> Graph:
    graph = Graph("INT8", (1, 32))
    image = graph.tensor("INT8", (1, 4, 4, 2))
    graph.add("RESHAPE", [0, graph.constant("INT32", [1, 4, 4, 2])], image)
    window = {**WINDOW, "filterHeight": 2, "filterWidth": 2}
    graph.add("AVERAGE_POOL_2D", [image], graph.tensor("INT8", (1, 4, 4, 2)), **window)
    return graph


def float_relu6() -> Graph:
    graph = Graph("FLOAT32", (1, 4))
    graph.add("RELU6", [0], graph.tensor("FLOAT32", (1, 4)))
    return graph


def two_kinds() -> Graph:
    """Two operators that are not known, one of them twice."""
    graph = Graph("INT8", (1, 4))
    for kind in ("SIN", "FLOOR", "FLOOR"):
        graph.add(kind, [len(graph.graph.tensors) - 1], graph.tensor("INT8", (1, 4)))
    return graph


UNSUPPORTED: dict[str, Callable[[], Graph]] = {
    "its output is quantised in another way than its input": pooled,
    "SIN giving 't1': the operator is not supported; FLOOR giving 't2' and 1 more: the operator": two_kinds,
    "its fused activation RELU_N1_TO_1 is not supported": lambda: net(fusedActivationFunction=RELU_N1),
    "it follows a SOFTMAX, which is supported only at the end": after_softmax,
    "was reshaped from a tensor without channels": reshaped_to_an_image,
    "RELU6 on floats is not supported": float_relu6,
    "is INT64; supported are FLOAT32, INT8": lambda: with_tensor(lambda t: vars(t).update(type=4, quantization=None)),
    "its output is quantised in another way": lambda: with_tensor(
        lambda t: setattr(t.quantization, "scale", np.asarray([0.2], np.float32)), 4
    ),
    "must be at least 1": lambda: net(strideH=0),
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_what_is_not_supported(tmp_path: Path, message: str) -> None:
    assert message in refused(UNSUPPORTED[message]().content(), tmp_path, UnsupportedModel)


def test_inputs_and_outputs(tmp_path: Path) -> None:
    for name, indices in (("inputs", [0, 3]), ("outputs", [7, 8]), ("outputs", [])):
        graph = net()
        graph.content()
        setattr(graph.graph, name, indices)
        content = graph.packed()
        assert f"{len(indices)} {name} " in refused(content, tmp_path, UnsupportedModel)


def test_ends_of_a_type_are_kept_by_relu6(tmp_path: Path) -> None:
    """RELU6 on a tensor that ends below 6."""
    last = load(stored(net(fusedActivationFunction=RELU6).content(), tmp_path)).layers[3]
    assert last.high.max() == pytest.approx(6.0, abs=0.05)  # type: ignore[attr-defined]
    graph = net(fusedActivationFunction=RELU6)
    for index in (3, 4):
        graph.graph.tensors[index].quantization.scale = np.asarray([0.01], np.float32)
    last = load(stored(graph.content(), tmp_path)).layers[3]
    assert last.high.max() == pytest.approx(1.34)  # type: ignore[attr-defined]


# --- packages that are not there ---


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite", None)
    path = stored(CONTENT, tmp_path)
    with pytest.raises(PackageMissing) as caught:
        load(path)
    assert sentence(caught).endswith("pip install 'qverify[tflite]'.")
    assert "pip install 'qverify[tflite]'" in refusal("inspect", str(path), status=3)


def test_without_litert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(CONTENT, tmp_path)
    assert not any("LiteRT" in note for note in load(path).notes)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert any("not compared with LiteRT" in note for note in load(path).notes)


def test_the_command_line_reads_it(tmp_path: Path) -> None:
    from tests.support.commands import qverify as command

    result = command("inspect", str(stored(CONTENT, tmp_path, "model.bin")))
    assert result.exit_code == 0 and "t7/rounded" in result.output
    assert "t8: SOFTMAX dropped" in result.stderr


def test_a_damaged_file_on_the_command_line(tmp_path: Path) -> None:
    assert "is damaged or was cut short" in refusal("inspect", str(stored(CONTENT[:300], tmp_path)))
