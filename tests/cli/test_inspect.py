"""`qverify inspect` against the numbers in the ONNX file."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from tests.support.commands import answer, qverify
from tests.support.paths import DIGITS


def test_layers_are_those_of_the_file() -> None:
    found = answer("inspect", DIGITS)
    model = onnx.load(DIGITS)
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    weights = [array for array in arrays if array.ndim == 2]
    biases = [array for array in arrays if array.ndim == 1 and array.dtype.kind == "f"]
    layers = [layer for layer in found["layers"] if layer["kind"] == "Dense"]
    assert [layer["shape"] for layer in layers] == [[bias.size] for bias in biases]
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        assert layer["parameters"] == weight.size + bias.size
        assert layer["weight_range"] == [float(weight.min()), float(weight.max())]
    assert found["parameters"] == sum(array.size for array in (*weights, *biases))
    assert found["layers"][0]["kind"] == "Input" and "input_radius" not in found["layers"][0]
    assert not found["shares_weights"] and found["convention"] is None and found["samples"] == 0


def test_radii_of_the_paper_are_powers_of_two() -> None:
    found = answer("inspect", DIGITS, "--bits", 5)
    step = 2.0**-4
    assert "5 bits" in found["convention"]
    for layer in found["layers"]:
        own = {key: value for key, value in layer.items() if key.endswith("_radius")}
        kinds = {"Input": {"input_radius"}, "Dense": {"weight_radius", "bias_radius"}, "Relu": {"activation_radius"}}
        assert set(own) == kinds.get(layer["kind"], set())
        assert all(value in (step, step / 2) for value in own.values())


def test_people_read_the_same_names() -> None:
    shown = qverify("inspect", DIGITS, "--bits", 5)
    assert shown.exit_code == 0
    assert all(layer["name"] in shown.stdout for layer in answer("inspect", DIGITS)["layers"])
