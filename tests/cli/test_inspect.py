"""`qverify inspect` against the numbers in the ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qverify import datasets
from qverify.datasets import Samples
from qverify.onnx import reader as onnx_io
from qverify.runs import problem
from qverify.verification.setup import Setup
from tests.support import networks
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


def test_inspect_lists_layers_radii_and_unstable_neurons() -> None:
    network = onnx_io.load(DIGITS)
    plain = answer("inspect", DIGITS)
    assert [la["name"] for la in plain["layers"]] == [la.name for la in network.layers]
    assert plain["parameters"] == 64 * 40 + 40 + 40 * 24 + 24 + 24 * 10 + 10 and plain["convention"] is None
    low, high = plain["layers"][1]["weight_range"]
    weight: Any = network.layers[1]
    assert (low, high) == (weight.weight.min(), weight.weight.max())
    full = answer("inspect", DIGITS, "--data", "digits", "--samples", "0:30", "--bits", 6)
    relu = full["layers"][4]
    assert relu["activation_radius"] == 2**-5 and full["layers"][0]["input_radius"] == 2**-6
    assert 0 < relu["unstable_bp"] < relu["unstable_ibp"] <= 24
    table = qverify("inspect", DIGITS, "--data", "digits", "--samples", "0:30", "--bits", 6).stdout
    assert "dense1" in table and f"{relu['unstable_ibp']:.2f}" in table


def test_constants_are_no_parameters(tmp_path: Path, rng: np.random.Generator) -> None:
    onnx_io.save(networks.NETWORKS["conv_pool"](rng), tmp_path / "pool.onnx")
    layers = {la["name"]: la["parameters"] for la in answer("inspect", tmp_path / "pool.onnx")["layers"]}
    assert layers["pool"] == 0 and layers["conv"] > 0


def test_unstable_counts_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("inspect", DIGITS, "--data", "digits", "--samples", "0:10", "--bits", 6)
    whole = answer(*given)["layers"]
    monkeypatch.setattr(Setup, "chunk", property(lambda self: 3))
    assert answer(*given)["layers"] == whole


def test_notes_of_the_loader_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    network = replace(onnx_io.load(DIGITS), notes=("a Softmax was dropped",))
    monkeypatch.setattr(problem, "load", lambda path, output=None: network)
    result = qverify("inspect", DIGITS)
    assert "qverify: note: a Softmax was dropped" in result.stderr and "Softmax" not in result.stdout


def test_inputs_beyond_the_paper_convention_are_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(problem, "load", lambda path, output=None: networks.mlp(rng, 4, 3))
    data = Samples("far", np.array([[-2.0, 0.0, 3.0, 1.0]]), np.array([1]), "", "")
    monkeypatch.setattr(datasets, "load", lambda name, parts: data)
    result = qverify("inspect", DIGITS, "--data", "far", "--bits", 8)
    assert "inputs go from -2 to 3" in result.stderr
