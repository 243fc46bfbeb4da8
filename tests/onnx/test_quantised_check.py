"""The comparison of quantised files with onnxruntime, point by point: it must be able to fail, and not fail at ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from qverify import forward_pass
from qverify.errors import ModelError
from qverify.layers import Add, Conv, Dense, Rounding, Scale
from qverify.onnx import check
from qverify.onnx.reader import load
from tests.support.onnx_models import node
from tests.support.quantised_graphs import f, graph, integer_operators, qdq, remarks, small_image


def pairs() -> onnx.ModelProto:
    """A layer of each type between rounding points."""
    return small_image(
        *qdq("q0", "x", "a0", "s", "z"),
        node("DequantizeLinear", "k ks", "kd"),
        node("Conv", "a0 kd b", "c"),
        *qdq("q1", "c", "a1", "t", "u"),
        node("Mul", "a1 m", "d"),
        *qdq("q2", "d", "a2", "t", "u"),
        node("Add", "a1 a2", "e"),
        *qdq("q3", "e", "a3", "v", "u"),
        node("Flatten", "a3", "g"),
        node("DequantizeLinear", "w ws", "wd"),
        node("Gemm", "g wd bias", "h"),
        *qdq("q4", "h", "y", "r", "u"),
        b=f(0.3, -0.4),
        m=f(0.7, 0.9).reshape(2, 1, 1),
        bias=f(0.2, -0.3, 0.1),
    )


def turned(weight: Any) -> Any:
    return np.ascontiguousarray(weight[:, :, ::-1])


Forward = Callable[[Any, Any], Any]
BROKEN: dict[str, tuple[type, Forward]] = {
    "bias lost": (Dense, lambda layer, x: x[0] @ layer.weight.T),
    "weights off by 2 %": (Dense, lambda layer, x: 1.02 * x[0] @ layer.weight.T + layer.bias),
    "bias of the wrong channel": (
        Conv,
        lambda layer, x: layer.apply(layer.weight, x[0]) + np.tile(layer.bias, layer.positions),
    ),
    "kernel reversed": (
        Conv,
        lambda layer, x: layer.apply(turned(layer.weight), x[0]) + np.repeat(layer.bias, layer.positions),
    ),
    "branch lost": (Add, lambda layer, x: x[0]),
    "scale inverted": (Scale, lambda layer, x: x[0] / layer.scale + layer.shift),
    "not a number": (Dense, lambda layer, x: x[0] @ layer.weight.T * np.nan),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_loader_refuses_what_onnxruntime_contradicts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = pairs()
    load(built)
    monkeypatch.setitem(forward_pass._FORWARD, *BROKEN[name])
    with pytest.raises(ModelError, match=r"at rounding point 'q\d_node' qverify and onnxruntime differ by .* allowed"):
        load(built)


@pytest.mark.parametrize("name", sorted(set(BROKEN) - {"branch lost"}))
def test_the_loader_refuses_what_an_integer_kernel_contradicts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = integer_operators()
    assert not remarks(built)
    monkeypatch.setitem(forward_pass._FORWARD, *BROKEN[name])
    with pytest.raises(ModelError, match=r"at rounding point 'q\d_node/rounded' qverify and onnxruntime differ in \d+"):
        load(built)


POINTS: dict[str, dict[str, Callable[[Rounding], Any]]] = {
    "step": {"step": lambda p: 1.02 * p.step},
    "lower end": {"low": lambda p: 0.9 * p.low},
    "upper end": {"high": lambda p: 0.9 * p.high},
}


@pytest.mark.parametrize("what", POINTS)
def test_a_rounding_point_that_was_misread_is_seen(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Rounding.on_grid

    def misread(*arguments: Any) -> Rounding:
        point = made(*arguments)
        fields = {name: change(point) for name, change in POINTS[what].items()}
        return Rounding(**{**vars(point), **fields})

    monkeypatch.setattr(Rounding, "on_grid", staticmethod(misread))
    with pytest.raises(ModelError, match="qverify and onnxruntime differ"):
        load(pairs())


def test_what_saturates_in_a_few_values_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on processors without instructions for sums of int8 products: some values of a kernel are off."""
    built = integer_operators()
    runtime, calls = check._runtime, list[Any]()

    def saturating(*arguments: Any) -> Any:
        run = runtime(*arguments)

        def off(x: Any) -> Any:
            calls.append(x)
            _, points = run(x)
            last = max(points)
            if len(calls) == 1:
                points[last] = points[last] + np.array([np.float64(np.float32(0.061)) * 5, 0, 0])
            return points[last], points

        return off

    monkeypatch.setattr(check, "_runtime", saturating)
    (note,) = remarks(built)
    assert note == (
        "onnxruntime's integer kernels give other values on this machine at 'q4_node/rounded': they add in saturating "
        "16 bits where the processor has no instructions for more."
    )


def test_weights_alone_are_compared_node_by_node() -> None:
    """Optimised, onnxruntime rounds the tensor they are multiplied by."""
    rng = np.random.default_rng(8)
    weight = rng.integers(-127, 128, (32, 5)).astype(np.int8)
    load(graph(node("DequantizeLinear", "w s", "d"), node("MatMul", "x d", "y"), shape=("N", 32), w=weight, s=f(0.01)))
