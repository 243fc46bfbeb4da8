"""The comparison with LiteRT finds what a reader could get wrong, in the layer where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.errors import ModelError
from qverify.layers import Conv, Dense, Rounding
from qverify.tflite import check, load, reader, runtime
from tests.support.tflite_models import NONE, RELU, WINDOW, Graph, stored


def content(kind: str, rng: np.random.Generator, activation: int = RELU) -> bytes:
    """A convolution and a dense layer."""
    graph, quantised = Graph(kind, (1, 4, 4, 3), 0.02, 3), kind != "FLOAT32"
    step, zero = np.float32(0.02), -128 if activation == RELU else 0

    def constants(shape: tuple[int, ...], scale: float, source: np.float32) -> list[int]:
        if not quantised:
            return [graph.constant(kind, rng.normal(size=shape)), graph.constant(kind, rng.normal(size=shape[0]))]
        unit = np.float32(source * np.float32(scale))
        bias = graph.constant("INT32", np.rint(rng.normal(size=shape[0]) / unit), unit)
        return [graph.constant("INT8", rng.integers(-127, 128, shape), scale), bias]

    image = graph.tensor(kind, (1, 4, 4, 3), 0.05, zero)
    window = {**WINDOW, "fusedActivationFunction": activation}
    graph.add("CONV_2D", [0, *constants((3, 3, 3, 3), 0.006, step)], image, **window)
    flat = graph.tensor(kind, (1, 48), 0.05, zero)
    graph.add("RESHAPE", [image, graph.constant("INT32", [1, 48])], flat)
    out = graph.tensor(kind, (1, 6), 0.2, -9)
    graph.add("FULLY_CONNECTED", [flat, *constants((6, 48), 0.006, np.float32(0.05))], out)
    return graph.content()


def lost_bias(layer: Any) -> Any:
    return replace(layer, bias=0 * layer.bias) if isinstance(layer, Conv) else layer


def swapped_axes(layer: Any) -> Any:
    return replace(layer, weight=layer.weight.transpose(0, 1, 3, 2)) if isinstance(layer, Conv) else layer


def unmoved_columns(layer: Any) -> Any:
    """As if the file flattened channels first."""
    if not isinstance(layer, Dense):
        return layer
    moved = layer.weight.reshape(-1, 3, 4, 4).transpose(0, 2, 3, 1).reshape(len(layer.weight), 48)
    return replace(layer, weight=moved)


def higher_end(layer: Any) -> Any:
    if isinstance(layer, Rounding) and (layer.low == 0).all():
        return replace(layer, low=layer.low - 3 * layer.step)
    return layer


def other_pads(layer: Any) -> Any:
    return replace(layer, pads=(2, 1, 0, 1)) if isinstance(layer, Conv) else layer


@pytest.mark.parametrize("kind", ["INT8", "FLOAT32"])
@pytest.mark.parametrize("wrong", [lost_bias, swapped_axes, unmoved_columns, higher_end, other_pads])
def test_what_was_misread(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    wrong: Callable[[Any], Any],
) -> None:
    path = stored(content(kind, rng), tmp_path)
    load(path)
    if wrong is higher_end and kind == "FLOAT32":
        pytest.skip("floats have no ends")

    def misread(model: Any, network: Any, builder: Any) -> list[str]:
        layers = tuple(wrong(layer) for layer in network.layers)
        return check.compare(model, replace(network, layers=layers), builder)

    monkeypatch.setattr(reader, "compare", misread)
    with pytest.raises(ModelError, match="qverify and LiteRT differ by") as caught:
        load(path)
    assert f"in layer '{'t6' if wrong is unmoved_columns else 't1'}" in str(caught.value)


def test_a_step_off_everywhere(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number is off by more than a rule of rounding may put it, but all are."""
    path = stored(content("INT8", rng, NONE), tmp_path)
    load(path)

    def misread(model: Any, network: Any, builder: Any) -> list[str]:
        conv = network.layers[2]
        moved = replace(conv, bias=conv.bias + 0.8 * network.layers[3].step[0])
        return check.compare(model, network.with_layers({2: moved}), builder)

    monkeypatch.setattr(reader, "compare", misread)
    with pytest.raises(ModelError, match=r"differ by a step in \d\d% of the numbers of layer 't1/rounded'"):
        load(path)


def test_litert_has_a_process_of_its_own(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels may end the process that they run in, and what they say is said."""
    path = stored(content("INT8", rng), tmp_path)
    monkeypatch.setattr(runtime, "_START", "import os; os.abort()")
    with pytest.raises(ModelError, match=r"cannot be checked \(its process was ended by SIGABRT\)"):
        load(path)
    monkeypatch.setattr(runtime, "_START", "raise SystemExit(5)")
    with pytest.raises(ModelError, match="its process ended with status 5"):
        load(path)
    monkeypatch.undo()
    good = path.read_bytes()
    with pytest.raises(RuntimeError, match="Cannot set tensor"):
        list(runtime.answers(good, 0, [np.zeros(7, np.int8)], [0]))
